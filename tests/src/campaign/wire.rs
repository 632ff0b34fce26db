//! The way between the nodes and the database: a proxy that can be cut, held and slowed, and led elsewhere.
//!
//! In place of network namespaces, whose delays need a module that kernels may lack (`sch_netem`) and root. What it cannot do is lose
//! single packets; TCP would send them again.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    Open,
    /// Connections are reset, and refused.
    Cut,
    /// Connections stay, and nothing comes through.
    Held,
    /// Everything comes so much later, in each direction.
    Slow(Duration),
}

#[derive(Debug)]
pub(super) struct Wire {
    address: SocketAddr,
    state: watch::Sender<State>,
    /// The socket of the server that it leads to.
    to: watch::Sender<PathBuf>,
}

impl Wire {
    pub(super) async fn to(socket: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (state, _) = watch::channel(State::Open);
        let (to, _) = watch::channel(socket);
        let (states, way) = (state.subscribe(), to.subscribe());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let to = way.borrow().clone();
                tokio::spawn(carry(client, to, states.clone()));
            }
        });
        Self { address, state, to }
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
}

async fn carry(client: TcpStream, to: PathBuf, mut states: watch::Receiver<State>) {
    if states
        .wait_for(|state| *state != State::Held)
        .await
        .is_err()
    {
        return;
    }
    if *states.borrow() == State::Cut {
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
    // When one direction ends, or all of it is cut, both halves are dropped: so the other side learns it.
    tokio::select! {
        () = pump(&mut from_client, &mut to_server, up) => {}
        () = pump(&mut from_server, &mut to_client, down) => {}
        () = cut => {}
    }
}

async fn pump(
    from: &mut (impl tokio::io::AsyncRead + Unpin),
    to: &mut (impl tokio::io::AsyncWrite + Unpin),
    mut states: watch::Receiver<State>,
) {
    let mut buffer = vec![0; 65536];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if states
            .wait_for(|state| *state != State::Held)
            .await
            .is_err()
        {
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
}
