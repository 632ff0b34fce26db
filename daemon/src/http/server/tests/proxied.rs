//! Connections that a load balancer brings, with the header before them and without.

use ppp::v2::{Addresses, Builder, Command, IPv4, Protocol, Version};

use super::*;

/// Where these tests' connections come from.
const HERE: &[&str] = &["127.0.0.0/8"];

fn header(client: [u8; 4]) -> Vec<u8> {
    let told = IPv4::new(client, [198, 51, 100, 1], 4711, 443);
    built(Command::Proxy, Protocol::Stream, told.into())
}

fn built(command: Command, protocol: Protocol, addresses: Addresses) -> Vec<u8> {
    Builder::with_addresses(Version::Two | command, protocol, addresses)
        .build()
        .unwrap()
}

/// Header, handshake, request; what the router says whose it is, or nothing where the connection was closed.
async fn asks(server: &Server, client: &TlsConnector, header: &[u8]) -> (String, impl Sized) {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(header).await.unwrap();
    let Ok(mut stream) = client.connect(name(), stream).await else {
        return (String::new(), None);
    };
    if stream.write_all(REQUEST).await.is_err() {
        return (String::new(), None);
    }
    let answer = read_until(&mut stream, "\r\n\r\n").await;
    let told = answer.rsplit("\r\n").next().unwrap_or_default();
    (told.to_owned(), Some(stream))
}

async fn told(server: &Server, client: &TlsConnector, header: &[u8]) -> String {
    asks(server, client, header).await.0
}

#[tokio::test]
async fn who_is_behind_a_listed_proxy_is_who_it_says_and_the_proxy_is_itself() {
    let (config, client) = tls_pair(&[b"http/1.1"]);
    let server = start_behind(HERE, Some(config), router(), limits()).await;
    assert_eq!(
        told(&server, &client, &header([192, 0, 2, 7])).await,
        "192.0.2.7"
    );
    let own = built(
        Command::Local,
        Protocol::Unspecified,
        Addresses::Unspecified,
    );
    assert_eq!(told(&server, &client, &own).await, "127.0.0.1");
}

#[tokio::test]
async fn a_listed_proxy_without_a_header_and_a_header_of_anybody_else_are_refused() {
    let (config, client) = tls_pair(&[b"http/1.1"]);
    let behind = start_behind(HERE, Some(Arc::clone(&config)), router(), limits()).await;
    let nobody = built(
        Command::Proxy,
        Protocol::Unspecified,
        Addresses::Unspecified,
    );
    for header in [
        &b""[..],
        b"PROXY TCP4 192.0.2.7 198.51.100.1 1 2\r\n",
        &nobody,
    ] {
        assert_eq!(told(&behind, &client, header).await, "", "{header:?}");
    }
    let others = &["192.0.2.0/24"];
    let unlisted = start_behind(others, Some(config), router(), limits()).await;
    assert_eq!(told(&unlisted, &client, &header([192, 0, 2, 7])).await, "");
    // The control: each of the two is served what it may send.
    assert_eq!(
        told(&behind, &client, &header([192, 0, 2, 7])).await,
        "192.0.2.7"
    );
    assert_eq!(told(&unlisted, &client, b"").await, "127.0.0.1");
}

/// However much of it comes, and whatever follows: within the time of the handshake it is over.
#[tokio::test]
async fn a_header_that_does_not_end_takes_no_longer_than_a_handshake() {
    let (config, _) = tls_pair(&[]);
    let mut short = limits();
    short.handshake = Duration::from_millis(100);
    let server = start_behind(HERE, Some(config), router(), short).await;
    let whole = header([192, 0, 2, 7]);
    for cut in [0, 1, 12, 16, whole.len() - 1, whole.len()] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(&whole[..cut]).await.unwrap();
        assert!(is_closed(&mut stream).await, "{cut}");
    }
}

/// The share of connections is each client's, and not the balancer's.
#[tokio::test]
async fn two_clients_of_one_proxy_do_not_share_their_connections() {
    let (config, client) = tls_pair(&[b"http/1.1"]);
    let mut many = limits();
    many.max_connections = 2 * ANYBODYS + 20;
    let server = start_behind(HERE, Some(Arc::clone(&config)), router(), many).await;
    let greedy = header([192, 0, 2, 7]);
    let mut held = Vec::new();
    for _ in 0..many.max_connections / 2 {
        let (told, stream) = asks(&server, &client, &greedy).await;
        assert_eq!(told, "192.0.2.7");
        held.push(stream);
    }
    assert_eq!(told(&server, &client, &greedy).await, "");
    assert_eq!(
        told(&server, &client, &header([192, 0, 2, 8])).await,
        "192.0.2.8"
    );
}

/// Two listed proxies, of which one opens connections and says nothing.
#[tokio::test]
async fn a_proxy_that_sends_no_header_leaves_room_for_another() {
    let (config, client) = tls_pair(&[b"http/1.1"]);
    let mut many = limits();
    many.max_connections = 2 * ANYBODYS + 20;
    // None of them ends by its time.
    many.handshake = Duration::from_secs(120);
    let server = start_behind(HERE, Some(config), router(), many).await;
    let mut silent = Vec::new();
    for _ in 0..many.max_connections + 20 {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        silent.push(socket.connect(server.address).await.unwrap());
    }
    let header = header([192, 0, 2, 7]);
    let served = tokio::time::timeout(Duration::from_secs(60), told(&server, &client, &header));
    assert_eq!(served.await.unwrap(), "192.0.2.7");
    // Those that it has no share of were closed, the others wait for their header.
    let mut closed = 0;
    for stream in &mut silent {
        let mut byte = [0];
        let read = tokio::time::timeout(Duration::from_millis(5), stream.read(&mut byte)).await;
        closed += usize::from(matches!(read, Ok(Ok(0) | Err(_))));
    }
    assert_eq!(silent.len() - closed, many.max_connections / 2);
}
