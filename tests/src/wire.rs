//! The way between a daemon and its server, which can be cut at a COMMIT, and lead to another server.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// It never reaches the server.
    BeforeCommit,
    /// It is carried out, and its answer never comes.
    AfterCommit,
}

#[derive(Debug, Default)]
struct State {
    /// The socket of the server.
    there: Mutex<PathBuf>,
    next: Mutex<Option<Cut>>,
    refusing: AtomicBool,
    clients: Mutex<Vec<UnixStream>>,
}

#[derive(Debug)]
pub struct Wire {
    dir: TempDir,
    /// Of the socket.
    name: String,
    state: Arc<State>,
}

impl Wire {
    /// To the server whose socket is in this folder.
    #[must_use]
    pub fn to(folder: &Path, port: u16) -> Self {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let name = format!(".s.PGSQL.{port}");
        let listener = UnixListener::bind(dir.path().join(&name)).unwrap();
        let state = Arc::new(State {
            there: Mutex::new(folder.join(&name)),
            ..State::default()
        });
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let state = Arc::clone(&shared);
                std::thread::spawn(move || carry(client.unwrap(), &state));
            }
        });
        Self { dir, name, state }
    }

    /// To another server from now on; whoever is connected is hung up on.
    pub fn leads_to(&self, folder: &Path) {
        let mut there = self.state.there.lock().unwrap();
        *there = folder.join(&self.name);
        self.state.hang_up();
    }

    #[must_use]
    pub fn folder(&self) -> &Path {
        self.dir.path()
    }

    pub fn cut_next(&self, cut: Cut) {
        *self.state.next.lock().unwrap() = Some(cut);
    }

    #[must_use]
    pub fn has_cut(&self) -> bool {
        self.state.next.lock().unwrap().is_none()
    }

    /// Whether nobody gets through, once the cut has happened.
    pub fn refuse(&self, refusing: bool) {
        self.state.refusing.store(refusing, Ordering::SeqCst);
    }
}

impl State {
    /// On all who are connected.
    fn hang_up(&self) {
        for client in self.clients.lock().unwrap().drain(..) {
            let _ = client.shutdown(Shutdown::Both);
        }
    }
}

fn carry(client: UnixStream, state: &Arc<State>) {
    let cut_already = state.next.lock().unwrap().is_none();
    if state.refusing.load(Ordering::SeqCst) && cut_already {
        return;
    }
    let listed = client.try_clone().unwrap();
    // Under one lock: whoever comes while the way is moved is hung up on, or led to where it leads then.
    let server = {
        let there = state.there.lock().unwrap();
        let Ok(server) = UnixStream::connect(&*there) else {
            return;
        };
        state.clients.lock().unwrap().push(listed);
        server
    };
    let (mut answers, mut to_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
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
                state.hang_up();
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
