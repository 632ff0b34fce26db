//! `[courier]`, and secrets that are systemd credentials.

use super::*;
use crate::private_file::Place;

pub(super) const COURIER: &str = "[courier]
socket = \"/run/custodyd-sockets/courier.sock\"
peer = \"custodyd\"
messages_per_minute = 600
";

fn with(more: &str) -> Result<Config, ConfigErrors> {
    read(&format!("{EXAMPLE}\n{more}"))
}

#[test]
fn both_processes_learn_of_the_socket_and_nothing_else_changes() {
    let plain = read(EXAMPLE).unwrap();
    assert_eq!((plain.courier, plain.delivery.courier), (None, None));
    let config = with(COURIER).unwrap();
    let socket = Path::new("/run/custodyd-sockets/courier.sock").to_owned();
    assert_eq!(config.delivery.courier, Some(socket.clone()));
    assert_eq!(config.witnesses.courier, Some(socket.clone()));
    let courier = config.courier.unwrap();
    assert_eq!(courier.socket, socket);
    assert_eq!(courier.peer.as_deref(), Some("custodyd"));
    let least = with("[courier]\nsocket = \"c\"\n")
        .unwrap()
        .courier
        .unwrap();
    assert_eq!((least.peer, least.messages_per_minute), (None, 600));
    for (wrong, told) in [
        ("[courier]\n", "the Unix socket of the courier"),
        (
            "[courier]\nsocket = \"c\"\npeer = \"a b\"\n",
            "a user such as",
        ),
        (
            "[courier]\nsocket = \"c\"\nurl = \"https://x.example\"\n",
            "courier.url: unknown key",
        ),
        (
            "[courier]\nsocket = \"c\"\nmessages_per_minute = 0\n",
            "from 1 to",
        ),
    ] {
        let errors = with(wrong).unwrap_err().to_string();
        assert!(errors.contains(told), "{wrong}: {errors}");
    }
    let long = format!("[courier]\nsocket = \"/{}\"\n", "s".repeat(107));
    assert!(with(&long).unwrap_err().to_string().contains("107 bytes"));
}

#[test]
fn a_private_key_is_a_file_or_a_credential_and_never_both() {
    const FILE: &str = "private_key = \"tls/private-key.pem\"\n";
    let named = EXAMPLE.replace(FILE, "private_key_credential = \"tls-key\"\n");
    let key = read(&named).unwrap().listen.private_key;
    assert_eq!(key, Place::Credential("tls-key".to_owned()));
    let both = format!("{FILE}private_key_credential = \"tls-key\"\n");
    for (to, told) in [
        (both.as_str(), "not both"),
        ("", "listen.private_key is missing"),
        (
            "private_key_credential = \"../key\"\n",
            "the name of a credential",
        ),
    ] {
        let errors = errors_with(FILE, to);
        assert!(errors.contains(told), "{to}: {errors}");
    }
}

#[test]
fn the_password_of_the_mail_server_is_a_file_or_a_credential() {
    let section = uncommented(EMAIL).replace(
        "password_file = \"smtp-password\"",
        "password_credential = \"smtp-password\"",
    );
    let email = read(&EXAMPLE.replace(EMAIL, &section))
        .unwrap()
        .delivery
        .email;
    let (name, place) = email.unwrap().login.unwrap();
    assert_eq!(name, "custody");
    assert_eq!(place, Place::Credential("smtp-password".to_owned()));
}
