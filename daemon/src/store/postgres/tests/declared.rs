//! What nodes tell each other by the server: as long as they are connected, what they have now, and who permits a difference.

use super::super::beside;
use super::*;
use crate::config::Agreed;

const SETTING: Agreed = Agreed::Policies;

fn has(value: u8, may_differ: bool) -> Vec<Declared> {
    let declared = |setting, value| Declared {
        setting,
        value,
        may_differ,
    };
    // The second is everybody's, and the server takes its bytes for a number below zero.
    vec![
        declared(SETTING, [value; 4]),
        declared(Agreed::Limits, [0xff; 4]),
    ]
}

async fn node(scene: &Scene) -> Postgres {
    let held = Postgres::hold(&scene.place, Share::Among).await.unwrap();
    Postgres::open(held, &scene.place).await.unwrap()
}

/// What one that has this sees of others, each as `value` and whether it is permitted.
async fn seen(by: &Postgres, has: &[Declared]) -> Vec<(u8, bool)> {
    let differing = by.differing(has).await.unwrap();
    assert!(differing.iter().all(|one| one.setting == SETTING));
    let mut seen: Vec<_> = differing
        .iter()
        .map(|one| (one.value[0], one.may_differ))
        .collect();
    seen.sort_unstable();
    seen
}

#[tokio::test]
async fn a_value_is_seen_as_long_as_its_node_has_it_and_is_connected() {
    let scene = Scene::new();
    scene.made().await.close().await;
    let (one, other) = (node(&scene).await, node(&scene).await);
    assert_eq!(seen(&one, &has(1, false)).await, []);
    one.declare(has(1, false)).await.unwrap();
    assert_eq!(seen(&one, &has(1, false)).await, []);
    // Whoever starts sees it before they have said anything.
    assert_eq!(seen(&other, &has(1, false)).await, []);
    assert_eq!(seen(&other, &has(2, false)).await, [(1, false)]);
    // What it had before is seen no more, however often it was said.
    for _ in 0..3 {
        one.declare(has(3, false)).await.unwrap();
    }
    assert_eq!(seen(&other, &has(2, false)).await, [(3, false)]);
    one.declare(has(2, false)).await.unwrap();
    assert_eq!(seen(&other, &has(2, false)).await, []);
    one.declare(has(0xfe, false)).await.unwrap();
    assert_eq!(seen(&other, &has(2, false)).await, [(0xfe, false)]);
    one.close().await;
    // The server takes a moment to miss it.
    for _ in 0..200 {
        if seen(&other, &has(2, false)).await.is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it is still seen");
}

#[tokio::test]
async fn a_difference_is_permitted_by_whoever_has_one_of_the_two_values() {
    let scene = Scene::new();
    scene.made().await.close().await;
    let (old, new) = (node(&scene).await, node(&scene).await);
    old.declare(has(1, false)).await.unwrap();
    new.declare(has(2, true)).await.unwrap();
    let third = node(&scene).await;
    for (value, expected) in [
        // With the old file, with the new one that permits nothing itself, and with neither.
        (1, vec![(2, true)]),
        (2, vec![(1, true)]),
        (3, vec![(1, false), (2, true)]),
    ] {
        assert_eq!(seen(&third, &has(value, false)).await, expected, "{value}");
    }
    // It ends with the value, and with the permission.
    new.declare(has(2, false)).await.unwrap();
    assert_eq!(seen(&third, &has(1, false)).await, [(2, false)]);
    new.declare(has(1, true)).await.unwrap();
    assert_eq!(seen(&third, &has(2, false)).await, [(1, true)]);
    new.declare(has(1, false)).await.unwrap();
    assert_eq!(seen(&third, &has(2, false)).await, [(1, false)]);
}

/// The server's word: whoever may connect makes up a difference, or takes one away. Neither is ours to prevent.
#[tokio::test]
async fn a_connection_of_anybodys_can_make_up_a_difference_or_keep_one_from_being_told() {
    let scene = Scene::new();
    scene.made().await.close().await;
    let (one, other) = (node(&scene).await, node(&scene).await);
    let number = beside::SETTINGS + i32::from(SETTING.number());
    let lock = |how: &str, value: u8| {
        let value = i32::from_be_bytes([value; 4]);
        format!("SELECT pg_catalog.pg_advisory_lock{how}({number}, {value})")
    };
    let mut stranger = Held::take(
        Server::new(&scene.place).unwrap(),
        Share::Among,
        Duration::ZERO,
    )
    .await
    .unwrap()
    .connection;
    for sql in [lock("_shared", 9), lock("", 1)] {
        let run = sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut stranger);
        run.await.unwrap();
    }
    one.declare(has(1, false)).await.unwrap();
    // The stranger's own lock is as good as the value.
    let shown = seen(&other, &has(2, false)).await;
    assert_eq!(shown, [(1, false), (9, false)]);
    // And it may go after the node has tried.
    stranger.close().await.unwrap();
    for _ in 0..200 {
        if seen(&other, &has(2, false)).await.is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("what was made up stays");
}
