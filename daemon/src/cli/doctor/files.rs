//! The files that a daemon needs: certificate, key, database.
//!
//! Called by `doctor` only. The database is judged by its attributes; its content is
//! believed only after the daemon has verified it.

use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{Access, access};
use std::os::unix::fs::MetadataExt;

use super::super::output::Line;
use crate::config::{Listen, Postgres};
use crate::http::{certificate, tls};

/// Renewal clients usually act 30 days ahead; at two weeks something is stuck.
const RENEWAL_DUE: Duration = Duration::from_secs(14 * 24 * 3600);

/// Readable, belonging together, and not about to expire.
pub(super) fn certificate(listen: &Listen) -> Line {
    if let Err(error) = tls::server_config(&listen.certificate, &listen.private_key) {
        return Line::red(
            "certificate",
            error.to_string(),
            "see listen.certificate and listen.private_key",
        );
    }
    let shown = listen.certificate.display();
    let validity = tls::read_chain(&listen.certificate)
        .ok()
        .and_then(|chain| certificate::validity(chain.first()?));
    match validity {
        Some(validity) => judge_validity(&shown.to_string(), &validity, SystemTime::now()),
        None => Line::warn(
            "certificate",
            format!("{shown}: its dates cannot be read"),
            "look with openssl x509 -dates",
        ),
    }
}

fn judge_validity(file: &str, validity: &certificate::Validity, now: SystemTime) -> Line {
    let until = humantime::format_rfc3339_seconds(validity.until);
    let left = validity.until.duration_since(now).unwrap_or_default();
    let action = "renew it and restart";
    if now < validity.from {
        let from = humantime::format_rfc3339_seconds(validity.from);
        Line::red(
            "certificate",
            format!("{file}: not valid before {from}"),
            "see the clock",
        )
    } else if left.is_zero() {
        Line::red("certificate", format!("{file}: expired at {until}"), action)
    } else if left < RENEWAL_DUE {
        Line::warn(
            "certificate",
            format!("{file}: expires soon, at {until}"),
            action,
        )
    } else {
        Line::ok(
            "certificate",
            format!("{file}: belongs to its key, valid until {until}"),
        )
    }
}

/// The database file and its folder: there, writable for this user, closed to others.
pub(super) fn store(database: &Path) -> Vec<Line> {
    let folder = database.parent().unwrap_or(Path::new("/"));
    let shown = database.display();
    if let Err(error) = access(folder, Access::WRITE_OK | Access::EXEC_OK) {
        // SQLite makes its write-ahead log beside the file.
        let action = format!(
            "mkdir -p '{0}' and chown it to the daemon's user",
            folder.display()
        );
        return vec![Line::red(
            "store",
            format!("{}: {error}", folder.display()),
            action,
        )];
    }
    let Ok(metadata) = std::fs::metadata(database) else {
        return vec![Line::warn(
            "store",
            format!("{shown}: not there yet"),
            "custodyd init, where there never was a realm; else docs/handbook/backup.md",
        )];
    };
    if !metadata.is_file() {
        return vec![Line::red(
            "store",
            format!("{shown}: not a regular file"),
            "see store.sqlite",
        )];
    }
    if let Err(error) = access(database, Access::READ_OK | Access::WRITE_OK) {
        let action = format!("chown '{shown}' to the daemon's user");
        return vec![Line::red("store", format!("{shown}: {error}"), action)];
    }
    vec![judge_mode(&shown.to_string(), metadata.mode() & 0o7777)]
}

/// What it takes to reach a server: nobody is called, since the daemon that serves says how it stands.
pub(super) fn server(place: &Postgres) -> Line {
    if let Err(problem) = crate::store::postgres::check(place) {
        return Line::red("store", problem.to_string(), "see [store.postgres]");
    }
    let folder = &place.state_directory;
    match access(folder, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) => Line::ok("store", format!("{place} (PostgreSQL)")),
        Err(error) => Line::red(
            "store",
            format!("{}: {error}", folder.display()),
            "see store.postgres.state_directory",
        ),
    }
}

/// Others gain no secret from the file, but may count accounts and copy it; writers may deny service.
fn judge_mode(file: &str, mode: u32) -> Line {
    if mode & 0o077 == 0 {
        return Line::ok("store", format!("{file}: writable, mode {mode:04o}"));
    }
    let detail = format!("{file}: mode {mode:04o} lets other users at it");
    Line::warn("store", detail, format!("chmod 0600 '{file}'"))
}

/// The deepest folder of a path that exists.
pub(super) fn nearest_folder(path: &Path) -> &Path {
    path.ancestors()
        .skip(1)
        .find(|folder| folder.is_dir())
        .unwrap_or(Path::new("/"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use super::*;
    use crate::cli::output::Status;
    use crate::http::certificate::Validity;

    #[test]
    fn a_certificate_is_judged_by_its_dates() {
        let from = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let day = Duration::from_secs(24 * 3600);
        let validity = Validity {
            from,
            until: from + 90 * day,
        };
        let status = |now| judge_validity("c.pem", &validity, now).status;
        assert_eq!(status(from - day), Status::Red);
        assert_eq!(status(from + day), Status::Ok);
        assert_eq!(status(from + 80 * day), Status::Warn);
        assert_eq!(status(from + 91 * day), Status::Red);
    }

    #[test]
    fn a_database_is_judged_by_its_place_and_mode() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x.sqlite");
        let status = |path: &Path| store(path).first().unwrap().status;
        assert_eq!(status(&dir.path().join("none/x.sqlite")), Status::Red);
        assert_eq!(status(&file), Status::Warn);
        std::fs::write(&file, b"").unwrap();
        assert_eq!(status(dir.path()), Status::Red);
        assert_eq!(judge_mode("x", 0o600).status, Status::Ok);
        assert_eq!(judge_mode("x", 0o644).status, Status::Warn);
        assert_eq!(nearest_folder(&dir.path().join("a/b/c")), dir.path());
    }
}
