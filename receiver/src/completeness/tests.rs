use super::*;

const OLD: Epoch = Epoch(0xa);
const NEW: Epoch = Epoch(0xb);

fn at(nanos: i64) -> Timestamp {
    Timestamp::from_nanos(nanos)
}

/// A lane of the stream `raw`; the time of a record is its number.
fn lane(epoch: Epoch, intervals: &[(u64, u64)]) -> LaneFacts {
    let mut received = Intervals::default();
    for &(from, to) in intervals {
        received.insert(Numbers { from, to }, Some(at(to.cast_signed())));
    }
    LaneFacts { epoch, stream: "raw".into(), class: "process".into(), received }
}

fn gap(epoch: Epoch, from: u64, to: u64, count: Option<u64>) -> AnnouncedGap {
    let numbers = Numbers { from, to };
    AnnouncedGap {
        epoch,
        stream: "raw".into(),
        class: "process".into(),
        numbers,
        count: count.unwrap_or(numbers.count()),
        latest: Some(at(to.cast_signed())),
        reason: "evicted".into(),
        covered_by: None,
    }
}

fn begins(epoch: Epoch, predecessor: Option<Epoch>, last: Option<u64>) -> AnnouncedEpoch {
    let began = at(if epoch == OLD { 0 } else { 1_000 });
    let raw = last.map(|last| ("raw".into(), "process".into(), last));
    AnnouncedEpoch { epoch, predecessor, began, last: raw.into_iter().collect() }
}

/// What is said of the stream `raw`: the state, up to when, and holes as (epoch, from, to, count).
type Said =
    (Completeness, Option<i64>, Vec<(u64, u64, u64, Option<u64>)>, Vec<(u64, u64, u64, Option<u64>)>, Vec<(u64, u64)>);

fn said(lanes: &[LaneFacts], gaps: &[AnnouncedGap], epochs: &[AnnouncedEpoch]) -> Said {
    let facts = Facts { lanes: lanes.to_vec(), gaps: gaps.to_vec(), epochs: epochs.to_vec() };
    let mut reports = reports(&"gw".into(), &facts);
    assert_eq!(reports.len(), 1, "{reports:?}");
    let Report { state, until, gaps, missing, unannounced, .. } = reports.remove(0);
    let holes =
        |holes: Vec<Hole>| holes.into_iter().map(|hole| (hole.epoch.0, hole.from, hole.to, hole.count)).collect();
    let unannounced = unannounced.into_iter().map(|end| (end.epoch.0, end.after)).collect();
    (state, until.map(Timestamp::as_nanos), holes(gaps), holes(missing), unannounced)
}

#[test]
fn an_epoch_that_goes_on_is_complete_up_to_its_last_record() {
    let expected = (Completeness::Complete, Some(9), vec![], vec![], vec![]);
    assert_eq!(said(&[lane(OLD, &[(1, 9)])], &[], &[begins(OLD, None, None)]), expected);
    // The beginning need not be here.
    assert_eq!(said(&[lane(OLD, &[(1, 9)])], &[], &[]), expected);
}

#[test]
fn what_is_neither_here_nor_in_a_gap_is_missing() {
    let lanes = [lane(OLD, &[(3, 9), (20, 30)])];
    let missing = vec![(0xa, 1, 2, None), (0xa, 10, 19, None)];
    assert_eq!(said(&lanes, &[], &[]), (Completeness::Missing, None, vec![], missing, vec![]));
    let gaps = [gap(OLD, 1, 2, None), gap(OLD, 12, 25, None)];
    let (in_gaps, missing) = (vec![(0xa, 1, 2, None), (0xa, 12, 19, None)], vec![(0xa, 10, 11, None)]);
    assert_eq!(said(&lanes, &gaps, &[]), (Completeness::Missing, Some(9), in_gaps, missing, vec![]));
    let gaps = [gap(OLD, 1, 2, None), gap(OLD, 10, 19, None), gap(OLD, 31, 40, None)];
    let in_gaps = vec![(0xa, 1, 2, None), (0xa, 10, 19, None), (0xa, 31, 40, None)];
    assert_eq!(said(&lanes, &gaps, &[]), (Completeness::Gaps, Some(40), in_gaps, vec![], vec![]));
}

#[test]
fn a_record_overrides_a_gap() {
    let gaps = [gap(OLD, 2, 4, None)];
    assert_eq!(said(&[lane(OLD, &[(1, 9)])], &gaps, &[]), (Completeness::Complete, Some(9), vec![], vec![], vec![]));
    let in_gaps = vec![(0xa, 2, 2, None), (0xa, 4, 4, None)];
    let lanes = [lane(OLD, &[(1, 1), (3, 3), (5, 9)])];
    assert_eq!(said(&lanes, &gaps, &[]), (Completeness::Gaps, Some(9), in_gaps, vec![], vec![]));
}

#[test]
fn a_gap_of_some_numbers_explains_as_many() {
    let lanes = [lane(OLD, &[(1, 4), (6, 7), (9, 9)])];
    let in_gaps = vec![(0xa, 5, 5, None), (0xa, 8, 8, None)];
    let expected = (Completeness::Gaps, Some(9), in_gaps, vec![], vec![]);
    assert_eq!(said(&lanes, &[gap(OLD, 5, 8, Some(2))], &[]), expected);
    let expected = (Completeness::Missing, None, vec![(0xa, 5, 8, Some(1))], vec![(0xa, 5, 8, Some(1))], vec![]);
    assert_eq!(said(&lanes, &[gap(OLD, 5, 8, Some(1))], &[]), expected);
}

#[test]
fn the_next_epoch_says_with_which_number_one_ended() {
    let lanes = [lane(OLD, &[(1, 9)]), lane(NEW, &[(1, 50)])];
    let begun = |last| [begins(OLD, None, None), begins(NEW, Some(OLD), last)];
    let complete = (Completeness::Complete, Some(50), vec![], vec![], vec![]);
    assert_eq!(said(&lanes, &[], &begun(Some(9))), complete);
    let missing = (Completeness::Missing, Some(9), vec![], vec![(0xa, 10, 12, None)], vec![]);
    assert_eq!(said(&lanes, &[], &begun(Some(12))), missing);
    // More came than the next epoch knows of: the end was forgotten with the power.
    let unannounced = (Completeness::Unannounced, Some(9), vec![], vec![], vec![(0xa, 9)]);
    assert_eq!(said(&lanes, &[], &begun(Some(7))), unannounced);
    assert_eq!(said(&lanes, &[], &begun(None)), unannounced);
    assert_eq!(said(&lanes, &[], &[begins(NEW, None, None)]), unannounced);
    // Nothing of the old epoch is here.
    let missing = (Completeness::Missing, None, vec![], vec![(0xa, 1, 9, None)], vec![]);
    assert_eq!(said(&[lane(NEW, &[(1, 50)])], &[], &begun(Some(9))), missing);
}

#[test]
fn a_person_is_told_what_is_not_here() {
    let facts = Facts {
        lanes: vec![lane(OLD, &[(1, 4), (9, 9)])],
        gaps: vec![gap(OLD, 5, 6, None)],
        epochs: vec![begins(NEW, Some(OLD), None)],
    };
    let told: Vec<String> = reports(&"gw".into(), &facts).iter().map(ToString::to_string).collect();
    let expected = "gw raw (process): 5 records, records are missing, whole up to 1970-01-01T00:00:00.000000006Z
  epoch 000000000000000a: 5 to 6, evicted
  epoch 000000000000000a: 7 to 8, missing
  epoch 000000000000000a: what follows 9 was never announced";
    assert_eq!(told, [expected]);
}

/// A device that starts each hour for years, whose clock says the same at each start: the epochs stand in the order of their predecessors.
#[test]
fn epochs_stand_behind_their_predecessors_however_many_they_are() {
    const EPOCHS: u64 = 20_000;
    // Numbers of epochs are random: these are spread by an odd factor.
    let epoch = |place: u64| Epoch(place.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let begins = |place: u64| AnnouncedEpoch {
        epoch: epoch(place),
        predecessor: (place > 0).then(|| epoch(place - 1)),
        began: at(0),
        last: vec![("raw".into(), "process".into(), 2)],
    };
    let facts = Facts {
        lanes: (0..EPOCHS).map(|place| lane(epoch(place), &[(1, 2)])).collect(),
        gaps: Vec::new(),
        epochs: (0..EPOCHS).rev().map(begins).collect(),
    };
    let expected: Vec<Epoch> = (0..EPOCHS).map(epoch).collect();
    assert_eq!(Epochs::of(&facts).in_order, expected);
    let reports = reports(&"gw".into(), &facts);
    assert_eq!((reports[0].state, reports[0].records), (Completeness::Complete, 2 * EPOCHS));
}
