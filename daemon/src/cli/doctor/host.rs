//! The host: clock, disk space, and what the kernel granted at the start.
//!
//! Called by `doctor` only. It reads attributes of files and never their content.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::super::output::Line;
use super::files::nearest_folder;
use crate::clock::EARLIEST;
use crate::hardening::Report;

const MIB: u64 = 1024 * 1024;
/// Below this the next growth of the write-ahead log may fail.
const RED_BELOW: u64 = 100 * MIB;
const WARN_BELOW: u64 = 1024 * MIB;

pub(super) fn hardening(report: &Report) -> [Line; 3] {
    // Not red: some containers can grant neither, and the daemon works without them.
    let line = |check, good: &str, outcome: &Result<(), String>| match outcome {
        Ok(()) => Line::ok(check, good),
        Err(reason) => {
            let (detail, action) = reason
                .split_once("; ")
                .unwrap_or((reason, "see the manual"));
            Line::warn(
                check,
                detail,
                format!("{action} (as this shell sees it, a unit has limits of its own)"),
            )
        }
    };
    [
        line("core dumps", "none are written", &report.core_dumps),
        line(
            "locked memory",
            "secrets do not reach swap",
            &report.locked_memory,
        ),
        line(
            "privileges",
            "nothing that is started gains new ones",
            &report.no_new_privileges,
        ),
    ]
}

/// Budgets, sessions and expiry need a clock that goes forward.
pub(super) fn clock(database: &Path) -> Line {
    let now = SystemTime::now();
    let changed = std::fs::metadata(database)
        .and_then(|metadata| metadata.modified())
        .ok();
    judge_clock(now, changed)
}

fn judge_clock(now: SystemTime, changed: Option<SystemTime>) -> Line {
    let action = "set the clock, and keep it set (systemd-timesyncd or chrony)";
    let text = humantime::format_rfc3339_seconds(now);
    if now
        .duration_since(UNIX_EPOCH)
        .is_ok_and(|since| since < EARLIEST)
    {
        return Line::red("clock", format!("{text} has long passed"), action);
    }
    // A minute of grace for small corrections.
    match changed.and_then(|changed| changed.duration_since(now).ok()) {
        Some(ahead) if ahead > Duration::from_secs(60) => {
            let detail = format!("{text} is before the last change of the database");
            Line::red("clock", detail, action)
        }
        _ => Line::ok("clock", text.to_string()),
    }
}

pub(super) fn disk_space(database: &Path) -> Line {
    let folder = nearest_folder(database);
    match rustix::fs::statvfs(folder) {
        Ok(space) => judge_space(folder, space.f_bavail.saturating_mul(space.f_frsize)),
        Err(error) => Line::red(
            "disk space",
            format!("{}: {error}", folder.display()),
            "see store.sqlite",
        ),
    }
}

fn judge_space(folder: &Path, free: u64) -> Line {
    let detail = format!("{} MiB free in {}", free / MIB, folder.display());
    let action = "make room, or put the database on a larger disk";
    match free {
        0..RED_BELOW => Line::red("disk space", detail, action),
        RED_BELOW..WARN_BELOW => Line::warn("disk space", detail, action),
        _ => Line::ok("disk space", detail),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::Status;

    #[test]
    fn a_clock_that_was_never_set_or_went_back_is_red() {
        let now = UNIX_EPOCH + EARLIEST + Duration::from_secs(1000);
        assert_eq!(judge_clock(now, None).status, Status::Ok);
        assert_eq!(judge_clock(UNIX_EPOCH, None).status, Status::Red);
        assert_eq!(
            judge_clock(now, Some(now + Duration::from_secs(30))).status,
            Status::Ok
        );
        assert_eq!(
            judge_clock(now, Some(now + Duration::from_secs(90))).status,
            Status::Red
        );
    }

    #[test]
    fn little_space_is_told_before_there_is_none() {
        let folder = Path::new("/");
        assert_eq!(judge_space(folder, 10 * MIB).status, Status::Red);
        assert_eq!(judge_space(folder, 500 * MIB).status, Status::Warn);
        assert_eq!(judge_space(folder, 5000 * MIB).status, Status::Ok);
    }

    #[test]
    fn what_was_not_granted_is_a_warning_with_what_to_do() {
        let report = Report {
            core_dumps: Ok(()),
            locked_memory: Err("the limit is 64 KiB; set LimitMEMLOCK=infinity".to_owned()),
            no_new_privileges: Ok(()),
        };
        let [dumps, memory, _] = hardening(&report);
        assert_eq!(dumps.status, Status::Ok);
        assert_eq!(memory.status, Status::Warn);
        assert!(
            memory
                .action
                .is_some_and(|action| action.contains("LimitMEMLOCK"))
        );
    }
}
