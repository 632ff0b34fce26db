//! The number of a user by its name, from `/etc/passwd`.
//!
//! Called once when the courier starts. The C library would ask every source of names that the host
//! has, over the network, too, and that is not for a process that decides by the answer. A user from
//! elsewhere is named by its number.

use std::path::PathBuf;

use super::CourierError;

const USERS: &str = "/etc/passwd";

/// The user that the configuration names, or else the usual one, where there is such a user.
pub(super) fn find(named: Option<&str>, usual: &str) -> Result<Option<u32>, CourierError> {
    let name = named.unwrap_or(usual);
    if let Ok(number) = name.parse() {
        return Ok(Some(number));
    }
    let list = std::fs::read_to_string(USERS).map_err(|source| CourierError::Users {
        path: PathBuf::from(USERS),
        source,
    })?;
    match (number_of(&list, name), named) {
        (None, Some(name)) => Err(CourierError::NoUser(name.to_owned())),
        (found, _) => Ok(found),
    }
}

/// `name:password:uid:...`
fn number_of(list: &str, name: &str) -> Option<u32> {
    let line = list
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line?.split(':').nth(1)?.parse().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_the_whole_name() {
        let list =
            "root:x:0:0::/root:/bin/sh\ncustodyd-courier:x:998:998::/:\ncustodyd:x:997:997::/:\n";
        assert_eq!(number_of(list, "custodyd"), Some(997));
        assert_eq!(number_of(list, "custodyd-courier"), Some(998));
        assert_eq!(number_of(list, "custody"), None);
        assert_eq!(number_of("custodyd:x:-1:0:\n", "custodyd"), None);
        assert_eq!(number_of("custodyd\n", "custodyd"), None);
    }

    #[test]
    fn a_user_that_was_named_must_be_there_and_the_usual_one_need_not() {
        assert_eq!(find(Some("0"), "x").unwrap(), Some(0));
        assert_eq!(find(Some("root"), "x").unwrap(), Some(0));
        assert!(find(Some("no.such.user"), "root").is_err());
        assert_eq!(find(None, "no.such.user").unwrap(), None);
    }
}
