//! What was delivered is deleted.

use super::*;

/// How many frames are in the file.
fn stored(store: &Store) -> i64 {
    store.file.connection.query_row("SELECT count(*) FROM frames", [], |row| row.get(0)).unwrap()
}

/// A store that is connected.
fn connected(folder: &Path) -> Store {
    let (mut store, _) = open(folder, 1, 0, 1);
    store.commit(commit(0, &[], true)).unwrap();
    store.hint(CONNECTED);
    store
}

/// Takes all that there is, and has it acknowledged.
fn deliver(store: &mut Store) -> i64 {
    let taken: Vec<_> = std::iter::from_fn(|| store.take(&[]).unwrap()).map(|frame| frame.id).collect();
    store.acknowledge(&taken);
    taken.len() as i64
}

/// A commit of an alert.
fn alert(second: i64) -> Commit {
    let mut commit = commit(second, &[(0, second)], false);
    commit.records.iter_mut().for_each(|emitted| emitted.stream = StreamId::ALERTS);
    commit
}

#[test]
fn an_alert_does_not_wait_until_it_is_and_it_is_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = connected(folder.path());
    store.commit(commit(1, &[(1, 7)], false)).unwrap();
    let delivered = deliver(&mut store);
    assert!(delivered > 0 && stored(&store) == delivered);
    store.commit(alert(2)).unwrap();
    assert_eq!(stored(&store), delivered + 1);
    let account = |store: &Store| store.accounts.all().into_iter().find(|(key, _)| &*key.stream == "live").unwrap().1;
    assert_eq!((account(&store).stored, account(&store).acknowledged), (1, 0));
    // It is not sent again meanwhile, nor does it wait for longer than without the alert.
    assert!(store.take(&["alerts".into()]).unwrap().is_none());
    assert!(!store.wants_flush(at(2)) && store.wants_flush(at(3)));
    store.flush(at(3)).unwrap();
    assert_eq!(stored(&store), 1);
    assert_eq!((account(&store).stored, account(&store).acknowledged), (0, 1));
    assert!(!store.wants_flush(at(9)));
}

#[test]
fn alerts_without_end_delete_what_they_leave() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = connected(folder.path());
    for second in 1..=300 {
        store.commit(alert(second)).unwrap();
        deliver(&mut store);
        assert!(stored(&store) <= 66, "{} after {second}", stored(&store));
    }
}
