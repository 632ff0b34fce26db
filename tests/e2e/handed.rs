//! What systemd gives and is told, with a stand-in for it (systemd-socket-activate and a datagram socket);
//! and what the process asks of the kernel, seen from outside. The real one is in `tests/systemd`.

use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use custodyd_tests::TestApp;
use custodyd_tests::app::free_port;

/// The daemon under systemd-socket-activate, with these sockets by these names.
fn activated(app: &TestApp, sockets: &[(&str, String)]) -> Command {
    let serve = app.command("serve");
    let mut command = Command::new("systemd-socket-activate");
    for (_, address) in sockets {
        command.args(["--listen", address]);
    }
    let names: Vec<&str> = sockets.iter().map(|(name, _)| *name).collect();
    command.arg(format!("--fdname={}", names.join(":")));
    for (name, value) in serve.get_envs() {
        let value = value.unwrap();
        command.arg(format!(
            "--setenv={}={}",
            name.to_str().unwrap(),
            value.to_str().unwrap()
        ));
    }
    command
        .arg("--setenv=NOTIFY_SOCKET")
        .arg("--setenv=WATCHDOG_USEC");
    command.arg(serve.get_program()).args(serve.get_args());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn said(socket: &UnixDatagram) -> String {
    let socket = socket.try_clone().unwrap();
    let hear = tokio::task::spawn_blocking(move || {
        let mut heard = [0; 256];
        let count = socket.recv(&mut heard).unwrap();
        String::from_utf8_lossy(&heard[..count]).trim().to_owned()
    });
    hear.await.unwrap()
}

#[tokio::test]
async fn it_serves_on_the_sockets_that_it_is_given_and_says_ready_alive_and_stopping() {
    let mut app = TestApp::start().await;
    assert!(app.stop());
    let (public, operator) = (free_port(), free_port());
    let notify = app.path("notify");
    let heard = UnixDatagram::bind(&notify).unwrap();
    heard
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let sockets = [
        ("public", format!("127.0.0.1:{public}")),
        ("operator", format!("127.0.0.1:{operator}")),
        (
            "operator-socket",
            app.path("given.sock").display().to_string(),
        ),
    ];
    let mut command = activated(&app, &sockets);
    command
        .env("NOTIFY_SOCKET", &notify)
        .env("WATCHDOG_USEC", "600000");
    let running = Running(command.spawn().unwrap());
    // The first connection starts it; it is accepted although nobody served yet.
    let given = format!("http://127.0.0.1:{operator}");
    let ready = async {
        loop {
            let answer = reqwest::get(format!("{given}/readyz")).await;
            if answer.is_ok_and(|answer| answer.status() == 200) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), ready)
        .await
        .unwrap();
    assert_eq!(said(&heard).await, "READY=1");
    for _ in 0..3 {
        assert_eq!(said(&heard).await, "WATCHDOG=1");
    }
    // The addresses of the configuration are not taken.
    assert!(
        reqwest::get(format!("{}/readyz", app.operator))
            .await
            .is_err()
    );
    let url = format!("https://localhost:{public}");
    let mut device = custodyd_tests::Device::new(&url, &app.ca, "notes");
    let served = device.call("GET", "/.well-known/jwks.json", None).await;
    served.expect(200);
    let pid = i32::try_from(running.0.id()).unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    loop {
        match said(&heard).await.as_str() {
            "WATCHDOG=1" => {}
            other => break assert_eq!(other, "STOPPING=1"),
        }
    }
    drop(running);
    // The socket is systemd's and stays.
    assert!(app.path("given.sock").exists());
}

#[tokio::test]
async fn a_socket_that_nobody_expects_or_that_is_open_to_all_is_refused() {
    let mut app = TestApp::start().await;
    assert!(app.stop());
    for (name, address, told) in [
        ("metrics", "127.0.0.1", "which nobody here takes"),
        ("operator", "0.0.0.0", "it asks for no credential"),
    ] {
        let port = free_port();
        let log = std::fs::File::create(app.path("refused")).unwrap();
        let mut command = activated(&app, &[(name, format!("{address}:{port}"))]);
        let mut running = Running(command.stderr(log).spawn().unwrap());
        let ended = async {
            loop {
                let _ = std::net::TcpStream::connect(("127.0.0.1", port));
                if let Some(status) = running.0.try_wait().unwrap() {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let ended = tokio::time::timeout(Duration::from_secs(30), ended).await;
        assert_eq!(ended.unwrap().code(), Some(1));
        let log = std::fs::read_to_string(app.path("refused")).unwrap();
        assert!(log.contains(told), "{name}: {log}");
    }
}

#[tokio::test]
async fn the_kernel_keeps_what_the_process_asked_of_it() {
    let app = TestApp::start().await;
    let id = app.id();
    let read = |what: &str| std::fs::read_to_string(format!("/proc/{id}/{what}")).unwrap();
    let status = read("status");
    let value = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("{name} {status}"))
            .trim()
            .to_owned()
    };
    assert_eq!(value("NoNewPrivs:"), "1");
    let limits = read("limits");
    let cores = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"));
    let cores: Vec<&str> = cores.unwrap().split_whitespace().collect();
    assert_eq!(cores[4..6], ["0", "0"]);
    // Locked, where the log does not say why not (`doctor` does).
    let doctor = String::from_utf8(app.command("doctor").output().unwrap().stdout).unwrap();
    let granted = doctor.contains("secrets do not reach swap");
    assert_eq!(granted, value("VmLck:") != "0 kB", "{doctor}\n{status}");
    // Not dumpable: the kernel gives its entries in /proc to root, and nobody of its own user attaches.
    let entry = std::fs::metadata(format!("/proc/{id}/environ")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&entry), 0);
    let attached = attach(id);
    let plain = Running(Command::new("sleep").arg("60").spawn().unwrap());
    let control = attach(plain.0.id());
    if rustix::process::geteuid().is_root() {
        assert!(
            attached && control,
            "root may, for which there is no remedy but not to be root"
        );
    } else {
        assert!(control && !attached);
    }
}

/// Whether this user's processes may look into the memory of another one.
fn attach(id: u32) -> bool {
    std::fs::File::open(format!("/proc/{id}/mem")).is_ok()
}
