//! A load balancer that passes TCP on, and says before each connection whose it is, or does not.
//!
//! The header is written here from HAProxy's specification of the PROXY protocol, version 2, not by the crate that the
//! daemon reads it with.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;

use crate::{Device, TestApp};

#[derive(Debug)]
pub struct Balancer {
    at: Ipv4Addr,
    task: JoinHandle<()>,
}

/// What says that a connection is this client's.
#[must_use]
pub fn header(client: Ipv4Addr) -> Vec<u8> {
    let mut bytes = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    // Version 2, on behalf of somebody; TCP over IPv4; twelve bytes.
    bytes.extend([0x21, 0x11, 0, 12]);
    bytes.extend(client.octets());
    bytes.extend([127, 0, 0, 1]);
    bytes.extend([0x12, 0x67, 0x01, 0xbb]);
    bytes
}

impl Balancer {
    /// Clients find it at `at`, the daemon at `from`; `says` comes before what they send.
    pub async fn start(app: &TestApp, at: Ipv4Addr, from: Ipv4Addr, says: Vec<u8>) -> Self {
        let (_, port) = app.url.rsplit_once(':').unwrap();
        let port: u16 = port.parse().unwrap();
        let listener = TcpListener::bind((at, port)).await.unwrap();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let says = says.clone();
                tokio::spawn(async move { pass_on(client, (from, port), &says).await });
            }
        });
        Self { at, task }
    }

    /// A device whose way to the daemon leads through here.
    #[must_use]
    pub fn device(&self, app: &TestApp) -> Device {
        Device::at(Some(IpAddr::V4(self.at)), &app.url, &app.ca, "notes")
    }
}

async fn pass_on(mut client: TcpStream, (from, port): (Ipv4Addr, u16), says: &[u8]) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((from, 0))).unwrap();
    let daemon = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut daemon = socket.connect(daemon).await.unwrap();
    // Whoever is refused may be cut off at any point.
    if daemon.write_all(says).await.is_ok() {
        let _ = tokio::io::copy_bidirectional(&mut client, &mut daemon).await;
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.task.abort();
    }
}
