//! Sockets that systemd hands over (`LISTEN_FDS`, sd_listen_fds(3)).
//!
//! Read by the command line before any thread runs, taken by `listening` and by the courier. With them
//! the process needs no right to open a socket of its own. A socket is known by its name
//! (`FileDescriptorName=`); one that nobody expects is a mistake in a unit and refused, because it would
//! be open and never answer.

use std::collections::VecDeque;
use std::io;

use listenfd::ListenFd;
use tokio::net::{TcpListener, UnixListener};

/// More than all units together have.
const MOST: usize = 64;

#[derive(Debug, thiserror::Error)]
pub enum HandedError {
    #[error("the socket {name:?} that systemd hands over: {source}")]
    Unusable { name: String, source: io::Error },
    #[error(
        "systemd hands over a socket named {name:?}, which nobody here takes; FileDescriptorName= in the \
         .socket unit must be one of: {known}"
    )]
    Unknown { name: String, known: String },
}

/// What was handed over and not taken yet.
#[derive(Default)]
pub struct Handed {
    sockets: Option<ListenFd>,
    waiting: VecDeque<(usize, String)>,
}

impl std::fmt::Debug for Handed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handed")
            .field("waiting", &self.waiting)
            .finish_non_exhaustive()
    }
}

impl Handed {
    /// To be called before threads run: the variables are taken out of the environment, too.
    #[must_use]
    pub fn from_environment() -> Self {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let sockets = ListenFd::from_env();
        let count = sockets.len().min(MOST);
        Self {
            waiting: named(&names, count),
            sockets: Some(sockets),
        }
    }

    /// All TCP listeners of a name: one for each address.
    ///
    /// # Errors
    /// For a socket of another kind.
    pub fn tcp(&mut self, name: &str) -> Result<Vec<TcpListener>, HandedError> {
        let mut found = Vec::new();
        while let Some(index) = self.take(name) {
            let taken = self.socket(|sockets| {
                let Some(listener) = sockets.take_tcp_listener(index)? else {
                    return Ok(None);
                };
                listener.set_nonblocking(true)?;
                TcpListener::from_std(listener).map(Some)
            });
            found.extend(taken.map_err(unusable(name))?);
        }
        Ok(found)
    }

    /// The Unix listener of a name.
    ///
    /// # Errors
    /// For a socket of another kind.
    pub fn unix(&mut self, name: &str) -> Result<Option<UnixListener>, HandedError> {
        let Some(index) = self.take(name) else {
            return Ok(None);
        };
        let taken = self.socket(|sockets| {
            let Some(listener) = sockets.take_unix_listener(index)? else {
                return Ok(None);
            };
            listener.set_nonblocking(true)?;
            UnixListener::from_std(listener).map(Some)
        });
        taken.map_err(unusable(name))
    }

    /// # Errors
    /// Where a socket is left.
    pub fn finish(self, known: &[&str]) -> Result<(), HandedError> {
        match self.waiting.into_iter().next() {
            None => Ok(()),
            Some((_, name)) => Err(HandedError::Unknown {
                name,
                known: known.join(", "),
            }),
        }
    }

    fn take(&mut self, name: &str) -> Option<usize> {
        let at = self
            .waiting
            .iter()
            .position(|(_, waiting)| waiting == name)?;
        self.waiting.remove(at).map(|(index, _)| index)
    }

    fn socket<T>(
        &mut self,
        take: impl FnOnce(&mut ListenFd) -> io::Result<Option<T>>,
    ) -> io::Result<Option<T>> {
        self.sockets.as_mut().map_or(Ok(None), take)
    }
}

fn unusable(name: &str) -> impl FnOnce(io::Error) -> HandedError {
    let name = name.to_owned();
    move |source| HandedError::Unusable { name, source }
}

/// Each socket with its name; "unknown" is what systemd itself says where there is none.
fn named(names: &str, count: usize) -> VecDeque<(usize, String)> {
    let mut names = names.split(':').filter(|name| !name.is_empty());
    let mut next = || names.next().unwrap_or("unknown").to_owned();
    (0..count).map(|index| (index, next())).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use super::*;

    fn handed(names: &str, count: usize) -> Handed {
        Handed {
            sockets: None,
            waiting: named(names, count),
        }
    }

    #[test]
    fn each_is_taken_by_its_name_and_what_is_left_is_refused() {
        let mut given = handed("public:operator:public", 3);
        assert_eq!(given.take("public"), Some(0));
        assert_eq!(given.take("public"), Some(2));
        assert_eq!(given.take("public"), None);
        let told = given.finish(&["public", "other"]).unwrap_err().to_string();
        assert!(told.contains("\"operator\"") && told.contains("public, other"));
        assert!(handed("", 0).finish(&[]).is_ok());
    }

    #[test]
    fn a_socket_without_a_name_is_nobodys() {
        let told = handed("", 1).finish(&["public"]).unwrap_err().to_string();
        assert!(told.contains("\"unknown\""), "{told}");
        // Names without a socket say nothing.
        assert!(handed("public:operator", 0).finish(&[]).is_ok());
    }
}
