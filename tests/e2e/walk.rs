//! The README's walk with curl, run as a reader would run it.

use std::process::Command;

use custodyd_tests::TestApp;

/// The block of the README that follows the words "prints".
fn promised() -> String {
    let readme =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
    let (_, after) = readme.split_once("It prints:\n\n```\n").unwrap();
    after.split_once("```\n").unwrap().0.to_owned()
}

#[tokio::test]
async fn the_tour_prints_what_the_readme_says() {
    let app = TestApp::start().await;
    std::fs::write(app.path("ca.pem"), &app.ca).unwrap();
    let output = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/tour"))
        .env("CUSTODYD_URL", &app.url)
        .env("CUSTODYD_CA", app.path("ca.pem"))
        .env("CUSTODYD_APP", "notes")
        .env("CUSTODYD_REALM", custodyd_tests::app::REALM)
        .output()
        .unwrap();
    let said = custodyd_tests::app::said(&output);
    assert!(output.status.success(), "{said}");
    let printed = String::from_utf8(output.stdout).unwrap();
    // The README's reader has the app `demo`.
    assert_eq!(
        printed.replace("/apps/notes/", "/apps/demo/").trim(),
        promised().trim()
    );
}
