//! Behind a load balancer that passes TCP on: whose rate a request counts for, and who may say so.

use std::net::Ipv4Addr;

use custodyd_tests::app::LIMITS;
use custodyd_tests::balancer::header;
use custodyd_tests::token::SoftToken;
use custodyd_tests::{Balancer, Device, Setup, TestApp};
use futures_util::future::join_all;

const LISTED: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);
const UNLISTED: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 10);
const ANN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
const BOB: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 8);

/// Three requests a minute and address, or so: `listed` may say whose they are.
async fn app(listed: Option<Ipv4Addr>) -> TestApp {
    let limits = LIMITS
        .replace("address_per_second = 1000000", "address_per_second = 1")
        .replace("address_burst = 1000000", "address_burst = 20");
    assert_ne!(limits, LIMITS);
    let setup = Setup {
        limits,
        ..Setup::default()
    };
    let mut app = TestApp::prepared(setup, SoftToken::fresh());
    if let Some(listed) = listed {
        let file = app.path("custodyd.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        let with = format!("[listen]\nproxy_protocol = [\"{listed}\"]");
        std::fs::write(file, text.replacen("[listen]", &with, 1)).unwrap();
    }
    app.found().await;
    app
}

async fn at(app: &TestApp, last: u8, from: Ipv4Addr, says: Vec<u8>) -> (Balancer, Device) {
    let balancer = Balancer::start(app, Ipv4Addr::new(127, 0, 1, last), from, says).await;
    let device = balancer.device(app);
    (balancer, device)
}

/// The status of one request that anybody may make; `None` where nobody answers.
async fn asks(device: &Device) -> Option<u16> {
    let url = format!("{}/.well-known/jwks.json", device.url);
    let answer = device.http.get(url).send().await.ok()?;
    Some(answer.status().as_u16())
}

/// Asks more often than one address may.
async fn floods(device: &Device) {
    let answers = join_all((0..200).map(|_| asks(device))).await;
    assert!(answers.contains(&Some(429)), "{answers:?}");
}

#[tokio::test]
async fn two_clients_behind_one_balancer_have_a_rate_each() {
    let app = app(Some(LISTED)).await;
    let (_to_ann, ann) = at(&app, 1, LISTED, header(ANN)).await;
    let (_to_bob, mut bob) = at(&app, 2, LISTED, header(BOB)).await;
    floods(&ann).await;
    bob.enrol().await;
    let (_, metrics) = app.operator("/metrics").await;
    assert!(
        metrics.contains(r#"custodyd_proxied_connections_total{outcome="told"}"#),
        "{metrics}"
    );
    // The same client on another way is the same client.
    floods(&bob).await;
    let (_again, bob) = at(&app, 3, LISTED, header(BOB)).await;
    let answers = join_all((0..50).map(|_| asks(&bob))).await;
    assert!(answers.contains(&Some(429)), "{answers:?}");
}

/// The control: where the balancer does not say whose they are, one client's flood is everybody's.
#[tokio::test]
async fn else_all_who_are_behind_it_share_one() {
    let app = app(None).await;
    let (_to_ann, ann) = at(&app, 1, LISTED, Vec::new()).await;
    let (_to_bob, bob) = at(&app, 2, LISTED, Vec::new()).await;
    floods(&ann).await;
    let answers = join_all((0..50).map(|_| asks(&bob))).await;
    assert!(answers.contains(&Some(429)), "{answers:?}");
}

#[tokio::test]
async fn who_is_not_listed_says_nothing_and_who_is_has_to() {
    let app = app(Some(LISTED)).await;
    let (_liar, through_liar) = at(&app, 1, UNLISTED, header(ANN)).await;
    assert_eq!(asks(&through_liar).await, None);
    let (_mute, through_mute) = at(&app, 2, LISTED, Vec::new()).await;
    assert_eq!(asks(&through_mute).await, None);
    let (_, metrics) = app.operator("/metrics").await;
    let refused = r#"custodyd_proxied_connections_total{outcome="refused"}"#;
    assert!(metrics.contains(refused), "{metrics}");
    let told = "a connection from an address in listen.proxy_protocol was closed";
    assert!(app.log().contains(told), "{}", app.log());
    assert!(app.log().contains("send-proxy-v2"), "{}", app.log());
    // The control: as the one the other is served, and the other as the one.
    let (_direct, directly) = at(&app, 3, UNLISTED, Vec::new()).await;
    assert_eq!(asks(&directly).await, Some(200));
    let (_honest, through_honest) = at(&app, 4, LISTED, header(ANN)).await;
    assert_eq!(asks(&through_honest).await, Some(200));
}
