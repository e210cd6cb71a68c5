use super::*;
use crate::plan::{CalendarLength, WindowKind};
use crate::uplink::BudgetTerms;
use crate::uplink::wire::UNREACHED;
use crate::zone::Zone;

const DAY: Duration = Duration::from_secs(86_400);
const RETURN_AFTER: Duration = Duration::from_secs(300);

/// A link that takes so many bytes a day, or as many as it carries.
fn link(bytes_a_day: Option<u64>) -> LinkAccount {
    bytes_a_day.map_or_else(LinkAccount::default, |bytes| account(bytes, CalendarLength::Days(1)))
}

fn account(bytes: u64, length: CalendarLength) -> LinkAccount {
    let period = WindowKind::Calendar { length, offset: Duration::ZERO, zone: Arc::new(Zone::utc()) };
    LinkAccount::new(None, Some(Budget::new(BudgetTerms { bytes, period, alert_percent: 10 }, None, Timestamp::EPOCH)))
}

impl Model {
    fn over(links: &[Option<u64>], brokers: usize, parcels: Vec<Parcel>, seed: u64) -> Self {
        let mut model = Self::new(parcels, Limits::NONE, seed);
        model.sender.use_links(links.iter().copied().map(link).collect());
        model.sender.fail_over(Failover::among(brokers, RETURN_AFTER));
        model.brokers = brokers;
        model.settle();
        model
    }

    /// Over good links, until something is so.
    fn go_on_until(&mut self, is_so: impl Fn(&Self) -> bool) {
        for _ in 0..20_000 {
            match () {
                () if is_so(self) => return,
                () if self.connecting => self.connect(),
                () if self.unacknowledged.is_empty() => self.sleep(),
                () => {
                    self.now += Duration::from_millis(10);
                    self.acknowledge(0, Verdict::Taken);
                }
            }
        }
        panic!("it never comes: {:?}", self.sender);
    }

    fn spent_of(&self, link: usize) -> u64 {
        self.sender.links(self.now()).nth(link).unwrap().budget.unwrap().spent
    }
}

#[test]
fn a_link_whose_budget_is_spent_is_followed_by_the_next_until_its_period_ends() {
    let alerts = (1..400).map(|id| parcel(id, 0, 3_000)).collect();
    let mut model = Model::over(&[Some(1_000_000), None], 1, alerts, 1);
    assert_eq!((model.connecting, model.way), (true, 0));
    model.go_on_until(|model| model.way == 1);
    assert!(model.connecting, "the other link is taken at once");
    assert!(model.spent_of(0) > 980_000);
    model.go_on_until(|model| model.stored.is_empty());
    assert_eq!((model.way, model.delivered.len()), (1, 399));
    model.go_on_until(|model| model.trying);
    assert!(model.now >= DAY && model.now < DAY + RETURN_AFTER * 2, "not before the next period: {:?}", model.now);
    model.end_trial(Ok(()));
    model.connect();
    assert_eq!((model.connected, model.way), (true, 0));
}

#[test]
fn what_a_budget_spreads_over_its_period_waits_for_its_link() {
    let frames = (1..400).map(|id| parcel(id, 1, 3_000)).collect();
    let mut model = Model::over(&[Some(1_000_000), None], 1, frames, 1);
    model.go_on_until(|model| model.stored.is_empty());
    assert_eq!((model.way, model.now > DAY), (0, true));
}

#[test]
fn where_all_budgets_are_spent_the_first_period_that_ends_is_waited_for() {
    let alerts = (1..800).map(|id| parcel(id, 0, 3_000)).collect();
    let mut model = Model::over(&[Some(1_000_000), Some(500_000)], 2, alerts, 1);
    model.go_on_until(|model| !model.connected && !model.connecting);
    assert!(model.spent_of(0) > 980_000 && model.spent_of(1) > 480_000);
    assert!(model.now < DAY);
    model.go_on_until(|model| model.connecting);
    assert!(model.now >= DAY && model.way == 0, "{:?}", model.now);
}

#[test]
fn of_a_day_and_a_month_that_are_spent_the_day_ends_first() {
    for day_first in [true, false] {
        let alerts = (1..800).map(|id| parcel(id, 0, 3_000)).collect();
        let mut model = Model::new(alerts, Limits::NONE, 1);
        let mut links = vec![link(Some(400_000)), account(1_000_000, CalendarLength::Months(1))];
        if !day_first {
            links.reverse();
        }
        model.sender.use_links(links);
        model.settle();
        model.go_on_until(|model| !model.connected && !model.connecting);
        model.go_on_until(|model| model.connecting);
        assert!(model.now >= DAY && model.now < DAY * 2, "{:?}", model.now);
        assert_eq!(model.way, usize::from(!day_first));
    }
}

#[test]
fn after_a_sleep_the_link_is_used_that_is_preferred_by_then() {
    let alerts = (1..200).map(|id| parcel(id, 0, 3_000)).collect();
    let mut model = Model::over(&[Some(200_000), None], 1, alerts, 1);
    let (every, linger) = (DAY, Duration::from_secs(3));
    let offset = Duration::from_secs(60);
    model.sender.follow(crate::uplink::Schedule { every, offset, alerts_now: true, linger });
    model.go_on_until(|model| matches!(model.sender.state(), State::Sleeping { .. }));
    assert_eq!(model.way, 1);
    model.go_on_until(|model| model.connecting && model.now >= DAY);
    assert_eq!(model.way, 0);
}

#[test]
fn a_preferred_link_to_the_same_broker_takes_the_place_of_the_one_in_use() {
    // In MQTT 3.1.1 a broker does not say why it closes the connection.
    for loss in [Loss::TakenOver, Loss::Broken] {
        let mut model = Model::over(&[None, None], 1, Vec::new(), 1);
        let cost = model.sender.links(model.now()).next().unwrap().carried;
        model.disconnect(Loss::Broken);
        assert_eq!((model.connecting, model.way), (true, 1));
        model.go_on_until(|model| model.trying);
        model.disconnect(loss);
        assert_eq!((model.connecting, model.way), (true, 0), "{loss:?}");
        assert!(model.sender.keeps_trial(0));
        assert_eq!(model.sender.links(model.now()).next().unwrap().carried, cost + cost, "it is paid once");
        // What comes of it does not last: the next one is later.
        model.disconnect(Loss::Broken);
        assert_eq!((model.connecting, model.way), (true, 1));
        let from = model.now;
        model.go_on_until(|model| model.trying);
        assert!(model.now - from >= RETURN_AFTER * 2);
    }
}

#[test]
fn an_attempt_costs_what_it_carried() {
    let mut model = Model::over(&[Some(1_000_000)], 1, Vec::new(), 1);
    let all = TERMS.wire.connect();
    for (loss, cost) in [(Loss::Unsent, Cost::default()), (Loss::Unreached, UNREACHED), (Loss::Broken, all)] {
        model.go_on_until(|model| model.connecting);
        let (spent, carried) = (model.spent_of(0), model.sender.carried());
        model.sender.handle(model.now(), Event::Disconnected(loss));
        assert_eq!(model.spent_of(0) + all.both(), spent + cost.both(), "{loss:?}");
        assert_eq!(model.sender.carried() + all, carried + cost, "{loss:?}");
        model.lose();
        model.settle();
    }
}

proptest! {
    /// What each link costs is counted here, but for keep-alives.
    #[test]
    fn no_link_costs_more_than_its_budget_and_every_frame_arrives(
        frames in prop::collection::vec((0_usize..3, 1_usize..20_000), 1..40),
        steps in prop::collection::vec(step(), 0..150),
        links in prop::collection::vec(prop::option::of(1_000_000_u64..3_000_000), 1..4),
        brokers in 1_usize..3,
        seed: u64,
    ) {
        let parcels = frames.iter().zip(1..).map(|(&(stream, bytes), id)| parcel(id, stream, bytes)).collect();
        let mut model = Model::over(&links, brokers, parcels, seed);
        steps.into_iter().for_each(|step| model.take(step));
        model.finish();
        prop_assert_eq!(model.delivered.len(), frames.len());
        for ((link, day), bytes) in model.cost {
            let most = links[link].unwrap_or(u64::MAX);
            prop_assert!(bytes <= most, "{bytes} bytes of {most} over link {link} on day {day}");
        }
    }
}
