//! This host's clock beside that of the database's server.
//!
//! Called by `connect`. One clock moves the time of the whole realm for good, and what its host deletes by it nobody brings
//! back (`crate::clock`). So a start is refused where the two are apart, before anything was done: all nodes compare with the
//! one server. Its word is not believed, for no time is ever taken from it: it can keep a daemon from starting, which it
//! can by silence as well. One whose clock is as wrong as this host's hides that, and all is as if nobody had compared.

use super::super::StoreError;
use super::connect::Share;
use crate::clock::{APART, shown};

/// A daemon alone is held to what nobody can have meant.
const A_DAY: u64 = 24 * 3600;

/// What becomes of a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Clocks {
    /// Of more than so many seconds.
    Refused(u64),
    /// Of a daemon that serves already: the realm has its time, and its log says so.
    ToldOf,
}

impl Clocks {
    pub(super) fn at_a_start(share: Share) -> Self {
        match share {
            Share::Alone => Self::Refused(A_DAY),
            Share::Among => Self::Refused(APART),
        }
    }

    /// The server's time was asked for between two looks at the host's.
    pub(super) fn compare(self, host: (u64, u64), server: u64) -> Result<(), StoreError> {
        let ahead = ahead(host, server);
        let apart = ahead.unsigned_abs();
        if let Self::Refused(most) = self
            && apart > most
        {
            return Err(StoreError::Refused {
                operation: "compare the clocks",
                problem: format!(
                    "this host's says {}, and that of the database's server {}: they are {apart} s apart, and a start \
                     takes {most} s at the most{}. Set both by one source (chrony, systemd-timesyncd), and start again; which \
                     of them is right custodyd can not know",
                    shown(host.1),
                    shown(server),
                    match most {
                        APART => " of one of several nodes",
                        _ => "",
                    }
                ),
            });
        }
        if apart > APART {
            tracing::error!(
                server,
                ahead_of_it = ahead,
                "this host's clock and that of the database's server are further apart than a minute (seconds since 1970): set \
                 both by one source. custodyd goes by this host's, and nodes go by the fastest of theirs"
            );
        }
        Ok(())
    }
}

/// Seconds, below zero where the host is behind. However long the server took to answer, that is no difference.
fn ahead((before, after): (u64, u64), server: u64) -> i64 {
    let seconds = |time: u64| i64::try_from(time).unwrap_or(i64::MAX);
    seconds(before.saturating_sub(server)) - seconds(server.saturating_sub(after))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    #[test]
    fn a_server_that_answers_late_is_not_apart() {
        assert_eq!(ahead((NOW, NOW + 90), NOW), 0);
        assert_eq!(ahead((NOW, NOW + 90), NOW + 90), 0);
        assert_eq!(ahead((NOW, NOW + 90), NOW + 95), -5);
        assert_eq!(ahead((NOW, NOW + 90), NOW - 5), 5);
        assert_eq!(ahead((NOW, NOW), u64::MAX), -i64::MAX);
    }

    #[test]
    fn a_node_is_refused_beyond_a_minute_and_a_daemon_alone_beyond_a_day() {
        let refused = |clocks: Clocks, server| clocks.compare((NOW, NOW), server).is_err();
        for (clocks, most) in [
            (Clocks::at_a_start(Share::Among), 60),
            (Clocks::at_a_start(Share::Alone), 86_400),
        ] {
            for (server, expected) in [
                (NOW + most, false),
                (NOW - most, false),
                (NOW + most + 1, true),
                (NOW - most - 1, true),
                (0, true),
                (u64::MAX, true),
            ] {
                assert_eq!(refused(clocks, server), expected, "{clocks:?} {server}");
                // Control: one that serves goes on.
                assert!(!refused(Clocks::ToldOf, server));
            }
        }
        let said = Clocks::Refused(60).compare((NOW, NOW), NOW - 3600);
        let said = said.unwrap_err().to_string();
        for part in ["2027-01-15T08:00:00Z", "2027-01-15T07:00:00Z", "3600 s"] {
            assert!(said.contains(part), "{said}");
        }
    }
}
