# Shared by provision, check and destroy: messages, options, where things are.
# Sourced, never run. It changes nothing.

fail() {
  printf '%s: %s\n' "${0##*/}" "$1" >&2
  exit "${2:-1}"
}

usage() {
  printf 'usage: %s --dir DIR --label LABEL\n' "${0##*/}" >&2
  printf '  DIR    a directory for the token, its configuration and its two PINs\n' >&2
  printf '  LABEL  the token label: 1 to 32 of A-Z a-z 0-9 . _ -\n' >&2
}

# Sets dir and label, or ends with a sentence.
parse_options() {
  dir='' label=''
  while (($# > 0)); do
    case $1 in
      --dir | --label)
        (($# >= 2)) || { usage; fail "$1 needs a value" 2; }
        [[ $1 == --dir ]] && dir=$2 || label=$2
        shift 2
        ;;
      -h | --help) usage; exit 0 ;;
      *) usage; fail "unknown option: $1" 2 ;;
    esac
  done
  [[ -n $dir ]] || { usage; fail 'the option --dir is missing' 2; }
  [[ -n $label ]] || { usage; fail 'the option --label is missing' 2; }
  [[ $label =~ ^[A-Za-z0-9._-]{1,32}$ ]] ||
    fail 'the label must be 1 to 32 of A-Z a-z 0-9 . _ -' 2
}

# Makes dir absolute. SoftHSM's configuration has no quoting, so a path that
# would need it is refused.
settle_dir() {
  dir=$(realpath -m -- "$dir")
  [[ $dir =~ ^[A-Za-z0-9/._+@-]+$ ]] ||
    fail "the directory $dir has a character that softhsm2.conf cannot hold; use letters, digits and / . _ + @ -" 2
}

# Whether destroy was interrupted in dir once the token was gone: what is left
# of it, and its PINs, are still to be overwritten. A token that is in its place
# is whole, whatever destroy has said before.
half_destroyed() {
  [[ ! -e $dir/tokens && (-e $dir/destroying || -e $dir/staging.destroyed) ]]
}

# Prints the path of the module.
find_module() {
  local candidate
  for candidate in \
    /usr/lib/softhsm/libsofthsm2.so \
    /usr/lib/*/softhsm/libsofthsm2.so \
    /usr/lib64/pkcs11/libsofthsm2.so \
    /usr/local/lib/softhsm/libsofthsm2.so; do
    if [[ -r $candidate ]]; then
      printf '%s\n' "$candidate"
      return 0
    fi
  done
  return 1
}

# The label of every token below a configuration, one per line. Wants `module`.
labels() {
  SOFTHSM2_CONF=$1 pkcs11-tool --module "$module" --list-token-slots 2>/dev/null |
    sed -n 's/^ *token label *: //p'
}

# The whole configuration of SoftHSM for a token directory.
configuration() {
  printf 'directories.tokendir = %s\n' "$1"
  printf 'objectstore.backend = file\n'
  printf 'objectstore.umask = 0077\n'
  printf 'log.level = ERROR\n'
  printf 'slots.removable = false\n'
}
