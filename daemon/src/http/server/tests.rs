//! Tests of the accept loop over real sockets: both protocols, each bound, and the drain.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a failed unwrap is a failed test

mod held;
mod proxied;

use axum::Extension;
use axum::routing::get;
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use super::*;

const REQUEST: &[u8] = b"GET /peer HTTP/1.1\r\nHost: x\r\n\r\n";

struct Server {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    task: JoinHandle<Drained>,
}

fn limits() -> Limits {
    Limits::new(8, Duration::from_secs(5))
}

fn router() -> Router {
    Router::new().route(
        "/peer",
        get(|Extension(peer): Extension<PeerAddress>| async move { peer.0.ip().to_string() }),
    )
}

async fn start(tls: Option<Arc<ServerConfig>>, router: Router, limits: Limits) -> Server {
    start_behind(&[], tls, router, limits).await
}

/// The same behind proxies.
async fn start_behind(
    proxies: &[&str],
    tls: Option<Arc<ServerConfig>>,
    router: Router,
    limits: Limits,
) -> Server {
    let proxies = proxies.iter().map(|net| net.parse().unwrap()).collect();
    let proxies = Arc::new(Proxies::new(proxies));
    let entrance = tls.map(|tls| Entrance {
        tls: Tls::new(tls),
        proxies,
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, shutdown) = watch::channel(false);
    let task = tokio::spawn(serve(listener, entrance, router, limits, shutdown));
    Server {
        address,
        stop,
        task,
    }
}

/// A server configuration and a client that trusts it.
fn tls_pair(alpn: &[&[u8]]) -> (Arc<ServerConfig>, TlsConnector) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = PrivateKeyDer::from_pem_slice(made.signing_key.serialize_pem().as_bytes()).unwrap();
    let chain = vec![CertificateDer::from_pem_slice(made.cert.pem().as_bytes()).unwrap()];
    let mut roots = RootCertStore::empty();
    roots.add(chain[0].clone()).unwrap();
    let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    (Arc::new(server), TlsConnector::from(Arc::new(client)))
}

fn name() -> ServerName<'static> {
    ServerName::try_from("localhost").unwrap()
}

/// Reads until the text has come or the connection ends.
async fn read_until(stream: &mut (impl AsyncReadExt + Unpin), end: &str) -> String {
    let mut seen = Vec::new();
    let mut chunk = [0; 1024];
    while let Ok(count @ 1..) = stream.read(&mut chunk).await {
        seen.extend_from_slice(&chunk[..count]);
        if String::from_utf8_lossy(&seen).contains(end) {
            break;
        }
    }
    String::from_utf8_lossy(&seen).into_owned()
}

/// Whether the peer closes within two seconds.
async fn is_closed(stream: &mut (impl AsyncReadExt + Unpin)) -> bool {
    let mut rest = Vec::new();
    tokio::time::timeout(Duration::from_secs(2), stream.read_to_end(&mut rest))
        .await
        .is_ok()
}

#[tokio::test]
async fn http_1_over_tls_reaches_the_router_with_the_peer_address() {
    let (config, client) = tls_pair(&[b"http/1.1"]);
    let server = start(Some(config), router(), limits()).await;
    let stream = TcpStream::connect(server.address).await.unwrap();
    let mut stream = client.connect(name(), stream).await.unwrap();
    stream.write_all(REQUEST).await.unwrap();
    let answer = read_until(&mut stream, "127.0.0.1").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
}

#[tokio::test]
async fn http_2_is_chosen_by_alpn_and_announces_its_limits() {
    let (config, client) = tls_pair(&[b"h2"]);
    let server = start(Some(config), router(), limits()).await;
    let stream = TcpStream::connect(server.address).await.unwrap();
    let mut stream = client.connect(name(), stream).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    // Preface and an empty SETTINGS frame (RFC 9113, sections 3.4 and 6.5).
    stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .await
        .unwrap();
    let mut frame = [0; 9];
    stream.read_exact(&mut frame).await.unwrap();
    assert_eq!(frame[3], 4, "the first frame is SETTINGS");
    let mut settings = vec![0; usize::from(frame[2])];
    stream.read_exact(&mut settings).await.unwrap();
    let value = |id: u8| {
        settings
            .chunks(6)
            .find(|s| s[1] == id)
            .map(|s| u32::from_be_bytes([s[2], s[3], s[4], s[5]]))
    };
    assert_eq!(value(3), Some(limits().connection.streams));
    assert_eq!(value(6), Some(limits().connection.head_bytes));
}

#[tokio::test]
async fn rubbish_in_place_of_a_handshake_harms_nobody_else() {
    let (config, client) = tls_pair(&[]);
    let server = start(Some(config), router(), limits()).await;
    let mut rubbish = TcpStream::connect(server.address).await.unwrap();
    rubbish.write_all(REQUEST).await.unwrap();
    assert!(is_closed(&mut rubbish).await);
    let stream = TcpStream::connect(server.address).await.unwrap();
    assert!(client.connect(name(), stream).await.is_ok());
}

#[tokio::test]
async fn a_silent_peer_loses_its_place_in_every_phase() {
    let (config, client) = tls_pair(&[b"h2", b"http/1.1"]);
    let mut short = limits();
    short.handshake = Duration::from_millis(100);
    short.connection.idle = Duration::from_millis(100);
    let server = start(Some(config), router(), short).await;
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    assert!(is_closed(&mut silent).await, "no handshake");
    let stream = TcpStream::connect(server.address).await.unwrap();
    let mut stream = client.connect(name(), stream).await.unwrap();
    assert!(is_closed(&mut stream).await, "a handshake and no request");
}

#[tokio::test]
async fn a_head_that_trickles_in_is_cut() {
    let mut short = limits();
    short.connection.head = Duration::from_millis(100);
    let server = start(None, router(), short).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream
        .write_all(b"GET /peer HTTP/1.1\r\nHost:")
        .await
        .unwrap();
    assert!(is_closed(&mut stream).await);
}

#[tokio::test]
async fn a_connection_beyond_the_limit_waits_for_a_place() {
    let mut one = limits();
    one.max_connections = 1;
    let server = start(None, router(), one).await;
    let mut first = TcpStream::connect(server.address).await.unwrap();
    first.write_all(REQUEST).await.unwrap();
    read_until(&mut first, "127.0.0.1").await;
    let mut second = TcpStream::connect(server.address).await.unwrap();
    second.write_all(REQUEST).await.unwrap();
    let early = tokio::time::timeout(Duration::from_millis(200), second.read_u8()).await;
    assert!(early.is_err(), "answered beyond the limit");
    drop(first);
    assert!(
        read_until(&mut second, "127.0.0.1")
            .await
            .contains("200 OK")
    );
}

#[tokio::test]
async fn a_stop_lets_the_answer_under_way_finish() {
    let (entered, has_entered) = oneshot::channel::<()>();
    let (release, released) = oneshot::channel::<()>();
    let once = Arc::new(std::sync::Mutex::new(Some((entered, released))));
    let slow = Router::new().route(
        "/peer",
        get(move || {
            let (entered, released) = once.lock().unwrap().take().unwrap();
            async move {
                entered.send(()).unwrap();
                released.await.unwrap();
                "late"
            }
        }),
    );
    let server = start(None, slow, limits()).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(REQUEST).await.unwrap();
    has_entered.await.unwrap();
    server.stop.send(true).unwrap();
    // The port is closed at once, the answer still comes.
    while TcpStream::connect(server.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    release.send(()).unwrap();
    assert!(read_until(&mut stream, "late").await.ends_with("late"));
    assert_eq!(server.task.await.unwrap(), Drained { cut: 0 });
}

#[tokio::test]
async fn a_drain_has_an_end() {
    let mut short = limits();
    short.drain = Duration::from_millis(100);
    let (entered, mut has_entered) = tokio::sync::mpsc::channel::<()>(1);
    let stuck = Router::new().route(
        "/peer",
        get(move || async move {
            entered.send(()).await.unwrap();
            std::future::pending::<()>().await;
        }),
    );
    let server = start(None, stuck, short).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(REQUEST).await.unwrap();
    has_entered.recv().await.unwrap();
    drop(server.stop);
    assert_eq!(server.task.await.unwrap(), Drained { cut: 1 });
    assert!(is_closed(&mut stream).await);
}

#[tokio::test]
async fn a_stop_ends_idle_connections_and_open_handshakes_at_once() {
    let (config, client) = tls_pair(&[b"http/1.1"]);
    let server = start(Some(config), router(), limits()).await;
    let _no_handshake = TcpStream::connect(server.address).await.unwrap();
    let stream = TcpStream::connect(server.address).await.unwrap();
    let _idle = client.connect(name(), stream).await.unwrap();
    server.stop.send(true).unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(2), server.task).await;
    assert_eq!(ended.unwrap().unwrap(), Drained { cut: 0 });
}

/// One address leaves connections to others; where there are few, it may have them all.
#[tokio::test]
async fn one_address_does_not_take_every_connection() {
    let mut many = limits();
    many.max_connections = 2 * ANYBODYS + 20;
    let server = start(None, router(), many).await;
    let mut held = Vec::new();
    let (mut served, mut closed) = (0, 0);
    for _ in 0..many.max_connections {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let _ = stream.write_all(REQUEST).await;
        match read_until(&mut stream, "127.0.0.1").await.as_str() {
            "" => closed += 1,
            _ => served += 1,
        }
        held.push(stream);
    }
    assert_eq!(served, many.max_connections / 2);
    assert_eq!(closed, many.max_connections / 2);
    // Its own are free again once it lets go of them.
    drop(held);
    tokio::time::timeout(Duration::from_secs(5), async {
        loop {
            let mut stream = TcpStream::connect(server.address).await.unwrap();
            let _ = stream.write_all(REQUEST).await;
            if read_until(&mut stream, "127.0.0.1")
                .await
                .contains("200 OK")
            {
                break;
            }
        }
    })
    .await
    .unwrap();
}
