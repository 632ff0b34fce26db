//! The way between one node and the database: a proxy that can be cut, held and slowed, and led elsewhere.
//!
//! In place of network namespaces, whose delays need a module that kernels may lack (`sch_netem`) and root. What it cannot do is lose
//! single packets; TCP would send them again.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    Open,
    /// Connections are reset, and refused.
    Cut,
    /// Connections stay, and nothing comes through, not even their end.
    Held,
    /// The same, and no packet arrives. Its connections are open; somebody else has to lose those.
    Lost,
    /// Everything comes so much later, in each direction.
    Slow(Duration),
}

#[derive(Debug)]
pub(super) struct Wire {
    address: SocketAddr,
    state: watch::Sender<State>,
    /// The socket of the server that it leads to.
    to: watch::Sender<PathBuf>,
    served_by: ServedBy,
}

/// The server's processes at the other end of the connections that are there.
type ServedBy = Arc<Mutex<BTreeSet<i32>>>;

impl Wire {
    pub(super) async fn to(socket: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (state, _) = watch::channel(State::Open);
        let (to, _) = watch::channel(socket);
        let (states, way) = (state.subscribe(), to.subscribe());
        let served_by = ServedBy::default();
        let listed = Arc::clone(&served_by);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let to = way.borrow().clone();
                tokio::spawn(carry(client, to, states.clone(), Arc::clone(&listed)));
            }
        });
        Self {
            address,
            state,
            to,
            served_by,
        }
    }

    pub(super) fn port(&self) -> u16 {
        self.address.port()
    }

    pub(super) fn set(&self, state: State) {
        self.state.send_replace(state);
    }

    /// New connections go there; the old ones end with the server that they led to.
    pub(super) fn lead(&self, socket: PathBuf) {
        self.to.send_replace(socket);
    }

    /// The server's processes that serve whoever comes this way.
    pub(super) fn served_by(&self) -> Vec<i32> {
        locked(&self.served_by).iter().copied().collect()
    }
}

fn locked(of: &Mutex<BTreeSet<i32>>) -> std::sync::MutexGuard<'_, BTreeSet<i32>> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn carry(
    client: TcpStream,
    to: PathBuf,
    mut states: watch::Receiver<State>,
    served_by: ServedBy,
) {
    if !is_let_through(&mut states).await || *states.borrow() == State::Cut {
        return;
    }
    let Ok(server) = UnixStream::connect(to).await else {
        return;
    };
    let _ = client.set_nodelay(true);
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let (up, down) = (states.clone(), states.clone());
    let cut = async {
        let _ = states.wait_for(|state| *state == State::Cut).await;
    };
    let mut listed = Listed {
        among: served_by,
        greeting: Some(Vec::new()),
        process: None,
    };
    // When one direction ends, or all of it is cut, both halves are dropped: so the other side learns it.
    tokio::select! {
        () = pump(&mut from_client, &mut to_server, up, |_| ()) => {}
        () = pump(&mut from_server, &mut to_client, down, |said| listed.learn(said)) => {}
        () = cut => {}
    }
}

/// Waits as long as nothing comes through; whether anything ever will.
async fn is_let_through(states: &mut watch::Receiver<State>) -> bool {
    let open = states.wait_for(|state| *state != State::Held).await;
    open.is_ok()
}

/// One of the server's processes, as long as its connection is there.
struct Listed {
    among: ServedBy,
    /// What the server has said, until it has named its process.
    greeting: Option<Vec<u8>>,
    process: Option<i32>,
}

/// It names it among the first things that it says.
const GREETING: usize = 8192;

impl Listed {
    fn learn(&mut self, said: &[u8]) {
        let Some(greeting) = &mut self.greeting else {
            return;
        };
        greeting.extend_from_slice(said);
        self.process = process(greeting);
        if let Some(process) = self.process {
            locked(&self.among).insert(process);
        }
        if self.process.is_some() || greeting.len() > GREETING {
            self.greeting = None;
        }
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        if let Some(process) = self.process {
            locked(&self.among).remove(&process);
        }
    }
}

/// The process of `BackendKeyData`, once that has come: each message is a letter, its length with that of the length, and the rest.
fn process(greeting: &[u8]) -> Option<i32> {
    let mut rest = greeting;
    loop {
        let (letter, after) = rest.split_first()?;
        let (length, body) = after.split_first_chunk::<4>()?;
        if *letter == b'K' {
            return body.first_chunk().copied().map(i32::from_be_bytes);
        }
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        rest = body.get(length.checked_sub(4)?..)?;
    }
}

async fn pump(
    from: &mut (impl tokio::io::AsyncRead + Unpin),
    to: &mut (impl tokio::io::AsyncWrite + Unpin),
    mut states: watch::Receiver<State>,
    mut seen: impl FnMut(&[u8]),
) {
    let mut buffer = vec![0; 65536];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        seen(&buffer[..read]);
        if !is_let_through(&mut states).await {
            return;
        }
        let state = states.borrow().clone();
        if let State::Slow(by) = state {
            tokio::time::sleep(by).await;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
    // Who hangs up is not heard either.
    let _ = is_let_through(&mut states).await;
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    /// A server that names its process, and then says whatever it is told.
    fn server(folder: &tempfile::TempDir) -> PathBuf {
        let socket = folder.path().join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        tokio::spawn(async move {
            for process in 7_u8.. {
                let (mut client, _) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    let key = [b'K', 0, 0, 0, 12, 0, 0, 0, process, 1, 2, 3, 4];
                    let greeting = [&b"R\0\0\0\x08\0\0\0\0"[..], &key].concat();
                    client.write_all(&greeting).await.unwrap();
                    let (mut from, mut to) = client.split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        socket
    }

    async fn connected(wire: &Wire) -> TcpStream {
        let mut client = TcpStream::connect(wire.address).await.unwrap();
        let mut greeting = [0; 22];
        client.read_exact(&mut greeting).await.unwrap();
        client
    }

    /// What comes back of one byte: it, an end, or nothing in time.
    async fn said(client: &mut TcpStream) -> Option<usize> {
        let mut buffer = [0; 1];
        let _ = client.write_all(b"x").await;
        let read = tokio::time::timeout(Duration::from_millis(200), client.read(&mut buffer));
        read.await.ok().map(|read| read.unwrap_or(0))
    }

    #[tokio::test]
    async fn one_wire_is_cut_or_held_and_the_others_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let socket = server(&folder);
        let wires = [Wire::to(socket.clone()).await, Wire::to(socket).await];
        let (mut here, mut there) = (connected(&wires[0]).await, connected(&wires[1]).await);
        assert_eq!(wires.each_ref().map(Wire::served_by), [[7], [8]]);
        wires[0].set(State::Held);
        assert_eq!(said(&mut here).await, None);
        assert_eq!(said(&mut there).await, Some(1));
        wires[0].set(State::Open);
        let mut late = [0; 1];
        here.read_exact(&mut late).await.unwrap();
        wires[0].set(State::Cut);
        assert_eq!(said(&mut here).await, Some(0));
        assert_eq!(said(&mut there).await, Some(1));
        assert_eq!(wires.each_ref().map(Wire::served_by), [vec![], vec![8]]);
    }

    /// Control: on an open wire it does.
    #[tokio::test]
    async fn on_a_held_wire_the_server_does_not_learn_that_its_client_has_hung_up() {
        let folder = tempfile::tempdir().unwrap();
        let wire = Wire::to(server(&folder)).await;
        for (state, stays) in [(State::Held, true), (State::Open, false)] {
            let client = connected(&wire).await;
            let before = wire.served_by();
            wire.set(state);
            drop(client);
            tokio::time::sleep(Duration::from_millis(200)).await;
            assert_eq!(wire.served_by() == before, stays);
            wire.set(State::Open);
            tokio::time::sleep(Duration::from_millis(200)).await;
            assert!(wire.served_by().is_empty());
        }
    }

    #[test]
    fn a_process_is_known_once_all_of_its_message_is_there() {
        let greeting = b"R\0\0\0\x08\0\0\0\0S\0\0\0\x07K\0\0K\0\0\0\x0c\0\0\x01\x02\0\0\0\0";
        for end in 0..greeting.len() - 4 {
            assert_eq!(process(&greeting[..end]), None, "{end}");
        }
        assert_eq!(process(greeting), Some(258));
    }
}
