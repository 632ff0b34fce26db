//! The way between a daemon and its server, which can be cut at a COMMIT.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// It never reaches the server.
    BeforeCommit,
    /// It is carried out, and its answer never comes.
    AfterCommit,
}

#[derive(Debug, Default)]
struct State {
    next: Mutex<Option<Cut>>,
    refusing: AtomicBool,
    clients: Mutex<Vec<UnixStream>>,
}

#[derive(Debug)]
pub(crate) struct Wire {
    dir: TempDir,
    state: Arc<State>,
}

impl Wire {
    pub(crate) fn to(folder: &Path, port: u16) -> Self {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let name = format!(".s.PGSQL.{port}");
        let (here, there) = (dir.path().join(&name), folder.join(&name));
        let listener = UnixListener::bind(here).unwrap();
        let state = Arc::<State>::default();
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (state, there) = (Arc::clone(&shared), there.clone());
                std::thread::spawn(move || carry(client.unwrap(), &there, &state));
            }
        });
        Self { dir, state }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn cut_next(&self, cut: Cut) {
        *self.state.next.lock().unwrap() = Some(cut);
    }

    pub(crate) fn has_cut(&self) -> bool {
        self.state.next.lock().unwrap().is_none()
    }

    /// Whether nobody gets through, once the cut has happened.
    pub(crate) fn refuse(&self, refusing: bool) {
        self.state.refusing.store(refusing, Ordering::SeqCst);
    }
}

fn carry(client: UnixStream, there: &Path, state: &Arc<State>) {
    let cut_already = state.next.lock().unwrap().is_none();
    if state.refusing.load(Ordering::SeqCst) && cut_already {
        return;
    }
    let Ok(server) = UnixStream::connect(there) else {
        return;
    };
    let (mut answers, mut to_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
    let listed = client.try_clone().unwrap();
    state.clients.lock().unwrap().push(listed);
    let silent = Arc::new(AtomicBool::new(false));
    let muted = Arc::clone(&silent);
    std::thread::spawn(move || {
        let mut buffer = [0; 65536];
        while let Ok(read @ 1..) = answers.read(&mut buffer) {
            if muted.load(Ordering::SeqCst) || to_client.write_all(&buffer[..read]).is_err() {
                break;
            }
        }
        let _ = to_client.shutdown(Shutdown::Both);
    });
    forward(client, server, &silent, state);
}

fn forward(mut client: UnixStream, mut server: UnixStream, silent: &AtomicBool, state: &State) {
    let mut buffer = [0; 65536];
    while let Ok(read @ 1..) = client.read(&mut buffer) {
        let bytes = &buffer[..read];
        // A simple query of this word alone: one byte, its length, the word, a zero.
        let commit = bytes
            .windows(12)
            .any(|window| window == b"Q\0\0\0\x0bCOMMIT\0");
        let cut = commit.then(|| state.next.lock().unwrap().take()).flatten();
        if let Some(cut) = cut {
            silent.store(true, Ordering::SeqCst);
            // First, or somebody asks on another connection what has become of it.
            if state.refusing.load(Ordering::SeqCst) {
                for other in state.clients.lock().unwrap().drain(..) {
                    let _ = other.shutdown(Shutdown::Both);
                }
            }
            if cut == Cut::AfterCommit {
                let _ = server.write_all(bytes);
                // It is carried out.
                std::thread::sleep(Duration::from_millis(300));
            }
            let _ = client.shutdown(Shutdown::Both);
            break;
        }
        if server.write_all(bytes).is_err() {
            break;
        }
    }
    let _ = client.shutdown(Shutdown::Both);
    let _ = server.shutdown(Shutdown::Both);
}
