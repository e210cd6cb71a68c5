//! What is sent first, and what goes first.

use rtlive_core::plan::Order;

use super::*;
use crate::message::{FrameId, Wanted};
use crate::store::Look;

/// The plan, with other orders of the stream `live`.
fn ordered(order: Order, evict: Order) -> Arc<Plan> {
    let mut plan = (*plan()).clone();
    plan.streams.iter_mut().filter(|stream| &*stream.name == "live").for_each(|stream| {
        stream.order = order;
        stream.evict = evict;
    });
    Arc::new(plan)
}

/// A commit that brings a plan.
fn reloaded(second: i64, plan: Arc<Plan>) -> Commit {
    let commit = commit(second, &[], true);
    Commit { snapshot: Some(Snapshot { plan, engine: Vec::new() }), ..commit }
}

/// A store of which the stream `live` has the values 1 to 6, a frame each, beside bulk; it goes newest first.
fn made(folder: &Path) -> Store {
    let (mut store, _) = open(folder, 1, 0, 7);
    store.commit(reloaded(0, ordered(Order::Newest, Order::Oldest))).unwrap();
    store.hint(CONNECTED);
    for second in 1..=6 {
        store.commit(commit(second, &[(1, second), (2, 100 + second), (2, 0), (2, 0)], false)).unwrap();
    }
    while store.take(&["live".into(), "bulk".into()]).unwrap().is_some() {}
    store
}

/// The next frame of the stream `live`, and its value.
fn live(store: &mut Store) -> Option<(FrameId, i64)> {
    let frame = store.take(&["bulk".into()]).unwrap()?;
    assert_eq!(&*frame.stream, "live");
    Some((frame.id, contents(&frame).2[0]))
}

#[test]
fn the_newest_goes_first_and_what_comes_meanwhile_before_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = made(folder.path());
    let values: Vec<_> = (0..3).map(|_| live(&mut store).unwrap().1).collect();
    assert_eq!(values, [6, 5, 4]);
    store.commit(commit(7, &[(1, 7)], false)).unwrap();
    let (seventh, value) = live(&mut store).unwrap();
    assert_eq!(value, 7);
    let (third, value) = live(&mut store).unwrap();
    assert_eq!(value, 3);
    store.give_back(&[third, seventh]);
    let left: Vec<_> = std::iter::from_fn(|| live(&mut store)).map(|(_, value)| value).collect();
    assert_eq!(left, [7, 3, 2, 1]);
    // Others go as ever.
    let bulk: Vec<_> = std::iter::from_fn(|| store.take(&[]).unwrap()).map(|frame| contents(&frame).2[0]).collect();
    assert_eq!(bulk, [101, 102, 103, 104, 105, 106]);
    // What was given out once comes again after a restart, in the same order.
    drop(store);
    let (mut store, _) = open(folder.path(), 1, 20, 8);
    store.hint(CONNECTED);
    while store.take(&["live".into(), "bulk".into()]).unwrap().is_some() {}
    let all: Vec<_> = std::iter::from_fn(|| live(&mut store)).map(|(_, value)| value).collect();
    assert_eq!(all, [7, 6, 5, 4, 3, 2, 1]);
}

#[test]
fn a_long_backlog_between_is_looked_through_within_bounds() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = made(folder.path());
    assert_eq!(live(&mut store).unwrap().1, 6);
    let mut newest = Vec::new();
    // Each new frame makes a range that was not looked at; there are more of them than are remembered.
    for second in 10..50 {
        store.commit(commit(second, &[(1, second)], false)).unwrap();
        store.commit(commit(second, &[(1, second + 100)], false)).unwrap();
        newest.push(live(&mut store).unwrap().1);
    }
    assert_eq!(newest, (110..150).collect::<Vec<_>>());
    let rest: Vec<_> = std::iter::from_fn(|| live(&mut store)).map(|(_, value)| value).collect();
    assert_eq!(rest, (10..50).rev().chain((1..6).rev()).collect::<Vec<_>>());
    assert!(matches!(
        store.look_for(&Wanted { except: ["bulk".into()].into(), ..Wanted::default() }).unwrap(),
        Look::Nothing
    ));
}

#[test]
fn the_order_may_change_while_frames_are_on_their_way() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = made(folder.path());
    let (sixth, _) = live(&mut store).unwrap();
    store.commit(reloaded(8, ordered(Order::Oldest, Order::Oldest))).unwrap();
    assert_eq!(live(&mut store).unwrap().1, 1);
    store.give_back(&[sixth]);
    assert_eq!(live(&mut store).unwrap().1, 2);
    store.commit(reloaded(9, ordered(Order::Newest, Order::Oldest))).unwrap();
    let left: Vec<_> = std::iter::from_fn(|| live(&mut store)).map(|(_, value)| value).collect();
    assert_eq!(left, [6, 5, 4, 3]);
}

#[test]
fn of_a_stream_that_keeps_the_first_records_the_newest_go() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = made(folder.path());
    store.commit(reloaded(8, ordered(Order::Oldest, Order::Newest))).unwrap();
    store.requeue();
    let bytes =
        |store: &Store| store.status().unwrap().streams.values().map(|account| account.stored_bytes).sum::<u64>();
    // All bulk has to go, and then some of the others.
    let bulk: u64 = {
        let status = store.status().unwrap();
        status.streams.iter().filter(|(key, _)| &*key.stream == "bulk").map(|(_, account)| account.stored_bytes).sum()
    };
    store.set_bytes_max(bytes(&store) - bulk - 200);
    store.commit(commit(9, &[], false)).unwrap();
    while store.take(&["live".into(), "bulk".into()]).unwrap().is_some() {}
    let left: Vec<_> = std::iter::from_fn(|| live(&mut store)).map(|(_, value)| value).collect();
    assert!((1..6).contains(&left.len()), "{left:?}");
    assert_eq!(left, (1..=left.len() as i64).collect::<Vec<_>>());
    assert_eq!(store.status().unwrap().check(), Vec::<String>::new());
}
