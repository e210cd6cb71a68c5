//! A month of a metered link.

use std::sync::Arc;
use std::time::Duration;

use rtlive_core::plan::{CalendarLength, Priority, WindowKind};
use rtlive_core::time::Timestamp;
use rtlive_core::uplink::{Budget, BudgetTerms};
use rtlive_core::zone::Zone;

use super::seconds;
use super::world::{Path, World};

const BUDGET_BYTES: u64 = 50_000_000;
/// 100 series, one aggregate of each a quarter of an hour, with five values: an hour's worth of 60 readings costs more.
const COARSE_BYTES: usize = 2_000;
/// 100 series at 1 Hz for a minute.
const FINE_BYTES: usize = 8_000;
const HOUR: u64 = 3_600;
const DAYS: u64 = 31;

#[test]
fn a_month_stays_within_its_budget_and_is_never_dark() {
    let zone = Arc::new(Zone::utc());
    let period = WindowKind::Calendar { length: CalendarLength::Months(1), offset: Duration::ZERO, zone };
    let terms = BudgetTerms { bytes: BUDGET_BYTES, period, alert_percent: 10 };
    let budget = Budget::new(terms, None, Timestamp::EPOCH);
    let mut world = World::new(Path::of(256.0, 300), FINE_BYTES, 1).within(budget);
    let (mut alerts, mut fine_of_day) = (0, Vec::new());
    for quarter in 0..DAYS * 96 {
        world.run_to(seconds(quarter * HOUR / 4));
        let coarse = world.parcel(Priority::Live, COARSE_BYTES);
        world.put_watched(coarse);
        if quarter % 7 == 3 {
            alerts += 1;
            world.alert();
        }
        if quarter % 96 == 95 {
            let fine = world.places.values().filter(|(priority, _)| *priority == Priority::Bulk).count();
            fine_of_day.push(fine - fine_of_day.iter().sum::<usize>());
        }
    }
    world.has_backlog = false;
    world.run_to(seconds(DAYS * 24 * HOUR - 60));
    assert!(world.cost <= BUDGET_BYTES, "{} bytes", world.cost);
    assert!(world.cost >= BUDGET_BYTES / 100 * 70, "what there is is used: {} bytes", world.cost);
    // Each alert and each span's coarsest level went at once.
    assert_eq!(world.alerts.len() as u64, alerts + DAYS * 96);
    let longest = world.alerts.iter().map(|alert| alert.took).max().unwrap();
    assert!(longest <= seconds(2), "{longest:?}");
    // Where there was room the finest level went too, on each day.
    assert!(fine_of_day.iter().all(|fine| *fine >= 30), "{fine_of_day:?}");
}
