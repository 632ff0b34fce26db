//! Flows in Debian's Chromium: the stories are in `client/e2e`, what they need in `custodyd_tests::stories`.

use custodyd_tests::stories::Stories;

use crate::tools::{passed, said};

/// Runs one file of stories against a daemon of its own; returns how many were told.
async fn stories(file: &str) -> usize {
    told(&mut Stories::of_one().await, file).await
}

async fn told(stories: &mut Stories, file: &str) -> usize {
    let output = stories.run(file).await;
    let said = said(&output);
    assert!(output.status.success(), "{file}:\n{said}");
    passed(&said)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flows() {
    assert_eq!(stories("e2e/flows.ts").await, 9);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ways_back() {
    assert_eq!(stories("e2e/ways-back.ts").await, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readme() {
    assert_eq!(stories("e2e/readme.ts").await, 2);
}

/// No browser in this one: npm's own library, in Node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn opaque() {
    assert_eq!(stories("e2e/opaque.ts").await, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offline() {
    assert_eq!(stories("e2e/offline.ts").await, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn browser() {
    assert_eq!(stories("e2e/browser.ts").await, 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn notebook() {
    assert_eq!(stories("e2e/notebook.ts").await, 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ways() {
    assert_eq!(stories("e2e/ways.ts").await, 4);
}

/// Two devices whose changes meet, and two notebooks in one browser.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn apart() {
    assert_eq!(stories("e2e/apart.ts").await, 5);
}

/// Recovery codes that nobody has seen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn codes() {
    assert_eq!(stories("e2e/codes.ts").await, 4);
}

/// A network that comes and goes, and a damaged storage.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trouble() {
    assert_eq!(stories("e2e/trouble.ts").await, 5);
}

/// Starting over, and what is in the way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over() {
    assert_eq!(stories("e2e/over.ts").await, 4);
}

/// What was typed, and what was damaged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn typed() {
    assert_eq!(stories("e2e/typed.ts").await, 3);
}

/// What only the owner can decide.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn owner() {
    assert_eq!(stories("e2e/owner.ts").await, 2);
}

/// The demo as it is installed, updated, and used by keyboard.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn app() {
    assert_eq!(stories("e2e/app.ts").await, 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots() {
    assert_eq!(stories("e2e/slots.ts").await, 6);
}

/// In Node: what ends server slots needs no page.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn moving() {
    assert_eq!(stories("e2e/moving.ts").await, 5);
}

/// Another device secret, in two browsers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotation() {
    assert_eq!(stories("e2e/rotation.ts").await, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn demo() {
    assert_eq!(stories("e2e/demo.ts").await, 3);
}

/// Three realms of independent operators, of which any two give the key back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threshold() {
    let mut realms = Stories::of(&["a.example", "b.example", "c.example"], "").await;
    assert_eq!(told(&mut realms, "e2e/threshold.ts").await, 6);
    assert_eq!(told(&mut realms, "e2e/convert.ts").await, 1);
}
