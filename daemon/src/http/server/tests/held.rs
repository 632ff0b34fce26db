//! What clients hold on to: answers that they do not take, and connections that they do nothing with.

use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::post;

use super::*;

const LARGE: usize = 32 << 20;

fn large() -> Router {
    router().route(
        "/large",
        get(|| async { axum::body::Bytes::from_static(&[7; LARGE]) }),
    )
}

/// How much of a large answer comes to a client that looks for it after so long.
async fn taken_after(pause: Duration, limits: Limits) -> usize {
    let server = start(None, large(), limits).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let request = b"GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    tokio::time::sleep(pause).await;
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all).await;
    all.len()
}

#[tokio::test]
async fn an_answer_that_is_not_taken_costs_its_connection() {
    let mut short = limits();
    short.connection.unread = Duration::from_millis(300);
    let pause = Duration::from_millis(1500);
    assert!(taken_after(pause, short).await < LARGE);
    // The control: one that is taken a little later has come whole.
    assert!(taken_after(pause, limits()).await > LARGE);
}

/// A connection of HTTP/2 whose peer wants so many bytes of an answer at first, after it has asked for one.
async fn asked_with_window(server: &Server, bytes: u32) -> TcpStream {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    // RFC 9113: the preface, SETTINGS with SETTINGS_INITIAL_WINDOW_SIZE (6.5.2), and HEADERS that end stream 1 (6.2).
    // RFC 7541, appendix A: GET, http, and literals for :path (4) and :authority (1).
    let mut sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x06\x04\0\0\0\0\0\0\x04".to_vec();
    sent.extend(bytes.to_be_bytes());
    sent.extend(b"\0\0\x0c\x01\x05\0\0\0\x01\x82\x86\x04\x05/peer\x01\x01x");
    stream.write_all(&sent).await.unwrap();
    stream
}

#[tokio::test]
async fn a_closed_window_keeps_no_answer_here() {
    let mut short = limits();
    short.connection.unread = Duration::from_millis(300);
    let server = start(None, router(), short).await;
    let mut closed = asked_with_window(&server, 0).await;
    assert!(is_closed(&mut closed).await);
    // The control: taken at once, it keeps nothing, and the connection stays.
    let mut open = asked_with_window(&server, 65_535).await;
    assert!(!is_closed(&mut open).await);
}

/// A server whose places are taken by peers that do nothing, and one more that asks.
async fn asks_where_all_is_taken(limits: Limits, wait: Duration) -> bool {
    let server = start(None, router(), limits).await;
    let mut idle = Vec::new();
    for _ in 0..limits.max_connections {
        idle.push(TcpStream::connect(server.address).await.unwrap());
    }
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(REQUEST).await.unwrap();
    let answer = tokio::time::timeout(wait, read_until(&mut stream, "127.0.0.1")).await;
    answer.is_ok_and(|answer| answer.contains("200 OK"))
}

#[tokio::test]
async fn who_does_nothing_gives_way_to_who_waits() {
    let mut crowded = limits();
    crowded.connection.crowded = Duration::from_millis(100);
    assert!(asks_where_all_is_taken(crowded, Duration::from_secs(5)).await);
    // The control: where nobody gives way, all others wait until the idle ones have had their time.
    crowded.connection.crowded = Duration::from_secs(60);
    assert!(!asks_where_all_is_taken(crowded, Duration::from_secs(2)).await);
}

/// One place, whose holder sends this again and again; and whether another one is served meanwhile.
async fn makes_way(sent: &'static str) -> bool {
    let mut one = limits();
    one.max_connections = 1;
    one.connection.crowded = Duration::from_millis(100);
    one.connection.closing = Duration::from_millis(100);
    let router = router()
        .route("/refused", get(|| async { StatusCode::TOO_MANY_REQUESTS }))
        .route("/takes", post(|_: Bytes| async { "taken" }));
    let server = start(None, router, one).await;
    let mut first = TcpStream::connect(server.address).await.unwrap();
    let holding = tokio::spawn(async move {
        while first.write_all(sent.as_bytes()).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut second = TcpStream::connect(server.address).await.unwrap();
    second.write_all(REQUEST).await.unwrap();
    let answer = read_until(&mut second, "127.0.0.1");
    let served = tokio::time::timeout(Duration::from_secs(8), answer).await;
    holding.abort();
    served.is_ok_and(|answer| answer.contains("200 OK"))
}

#[tokio::test]
async fn what_no_rate_bounds_keeps_no_connection() {
    for sent in [
        "GET /refused HTTP/1.1\r\nHost: x\r\n\r\n",
        "OPTIONS /peer HTTP/1.1\r\nHost: x\r\n\r\n",
        // A body that comes to an end only after all of this.
        "POST /takes HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n",
    ] {
        assert!(makes_way(sent).await, "{sent}");
    }
    // The control: what is served keeps it.
    assert!(!makes_way("GET /peer HTTP/1.1\r\nHost: x\r\n\r\n").await);
}

#[tokio::test]
async fn a_request_under_way_keeps_its_connection_where_others_wait() {
    let mut one = limits();
    one.max_connections = 1;
    one.connection.crowded = Duration::from_millis(100);
    one.connection.closing = Duration::from_millis(100);
    let slow = || async {
        tokio::time::sleep(Duration::from_secs(4)).await;
        "done"
    };
    let server = start(None, router().route("/slow", get(slow)), one).await;
    let mut first = TcpStream::connect(server.address).await.unwrap();
    let request = b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n";
    first.write_all(request).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut second = TcpStream::connect(server.address).await.unwrap();
    second.write_all(REQUEST).await.unwrap();
    assert!(read_until(&mut first, "done").await.contains("done"));
    // And then gives way.
    assert!(
        read_until(&mut second, "127.0.0.1")
            .await
            .contains("200 OK")
    );
}

/// A large answer that is taken slowly, though steadily, is taken whole.
#[tokio::test]
async fn an_answer_that_is_being_taken_keeps_its_connection_where_others_wait() {
    for unread in [Duration::from_secs(30), Duration::from_millis(100)] {
        let mut one = limits();
        one.max_connections = 1;
        one.connection.crowded = Duration::from_millis(100);
        one.connection.closing = Duration::from_millis(100);
        one.connection.unread_crowded = unread;
        let server = start(None, large(), one).await;
        let mut first = TcpStream::connect(server.address).await.unwrap();
        let request = b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n";
        first.write_all(request).await.unwrap();
        let _second = TcpStream::connect(server.address).await.unwrap();
        let _third = TcpStream::connect(server.address).await.unwrap();
        tokio::time::sleep(Duration::from_secs(4)).await;
        let (mut got, mut chunk) = (0, vec![0; 1 << 20]);
        while got < LARGE
            && let Ok(count @ 1..) = first.read(&mut chunk).await
        {
            got += count;
        }
        // The second one is the control.
        assert_eq!(got >= LARGE, unread > Duration::from_secs(1), "{got}");
    }
}
