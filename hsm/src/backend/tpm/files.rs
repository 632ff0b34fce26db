//! Small files in the state directory that have to be there after a loss of power, and to be whole.
//!
//! For the parent's modules. Nothing in such a file is believed because it lies there. Commands are run by root now
//! and then, and the directory is the daemon's: what is made in it belongs to whom the directory belongs. So
//! the daemon's user could have put anything there, and root follows no link, waits for no pipe and writes over no file.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown},
    path::Path,
};

use rustix::{fs::OFlags, io::Errno};

/// Durable when it returns. A crash before may leave a part of it.
pub(super) fn write(directory: &Path, name: &Path, bytes: &[u8]) -> io::Result<()> {
    let path = directory.join(name);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = made(directory, &path)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    File::open(directory)?.sync_all()
}

/// What a file holds, the first `longest` bytes of it; none where there is no file. Whatever else stands there is an error.
pub(super) fn read(path: &Path, longest: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match regular(OpenOptions::new().read(true), path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let mut bytes = Vec::new();
    file.take(longest).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// Opens a file that is there, and nothing else than a file.
pub(super) fn regular(how: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).map_err(io::Error::other)?;
    let file = match how.custom_flags(flags).open(path) {
        Err(error) if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => {
            return Err(io::Error::other("it is a link; expected a regular file"));
        }
        opened => opened?,
    };
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("expected a regular file")),
    }
}

/// A new file of the directory's owner, and nobody else's to read.
pub(super) fn made(directory: &Path, path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(path)?;
    let (of, is) = (fs::metadata(directory)?, file.metadata()?);
    if of.uid() != is.uid() {
        match fchown(&file, Some(of.uid()), Some(of.gid())) {
            // Only root gives files away.
            Err(error) if error.kind() != io::ErrorKind::PermissionDenied => return Err(error),
            _ => {}
        }
    }
    Ok(file)
}

/// The new one in the place of the old one, durably: one of the two is there at every moment.
pub(super) fn rename(directory: &Path, from: &str, to: &str) -> io::Result<()> {
    fs::rename(directory.join(from), directory.join(to))?;
    File::open(directory)?.sync_all()
}

/// All of it, or nothing.
pub(super) fn put(directory: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let new = format!("{name}.new");
    write(directory, Path::new(&new), bytes)?;
    rename(directory, &new, name)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn what_a_link_leads_to_is_not_written_over() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::write(at("other"), b"another's").unwrap();
        symlink(at("other"), at("file")).unwrap();
        symlink(at("other"), at("file.new")).unwrap();
        put(directory.path(), "file", b"ours").unwrap();
        assert_eq!(fs::read(at("other")).unwrap(), b"another's");
        assert_eq!(fs::read(at("file")).unwrap(), b"ours");
        assert!(!at("file").is_symlink());
        let refused = made(directory.path(), &at("other")).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
    }

    #[test]
    fn only_a_regular_file_is_read_and_no_more_of_it_than_is_wanted() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::write(at("file"), b"ours").unwrap();
        symlink(at("file"), at("link")).unwrap();
        fs::create_dir(at("folder")).unwrap();
        let pipe = rustix::fs::FileType::Fifo;
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, at("pipe"), pipe, mode, 0).unwrap();
        assert_eq!(read(&at("nothing"), 9).unwrap(), None);
        assert_eq!(read(&at("file"), 9).unwrap().unwrap(), b"ours");
        assert_eq!(read(&at("file"), 3).unwrap().unwrap(), b"our");
        // Nobody writes to the pipe: a plain `open` would wait for that.
        for other in [at("link"), at("folder"), at("pipe"), "/dev/zero".into()] {
            let error = read(&other, 9).unwrap_err().to_string();
            assert!(error.contains("expected a regular file"), "{error}");
        }
    }

    /// Root is whoever runs `token reseal` after an update. Without root there is nothing to give away.
    #[test]
    fn what_root_makes_is_the_directorys_owners() {
        let directory = tempfile::tempdir().unwrap();
        let own = fs::metadata(directory.path()).unwrap().uid();
        let owner = match own {
            0 => 4711,
            own => own,
        };
        std::os::unix::fs::chown(directory.path(), Some(owner), None).unwrap();
        for _ in 0..2 {
            put(directory.path(), "file", b"ours").unwrap();
            let file = fs::metadata(directory.path().join("file")).unwrap();
            assert_eq!(
                (file.uid(), file.permissions().mode() & 0o777),
                (owner, 0o600)
            );
        }
        // The control: the process itself would have made it its own.
        let plain = directory.path().join("plain");
        fs::write(&plain, b"").unwrap();
        assert_eq!(fs::metadata(&plain).unwrap().uid(), own);
    }
}
