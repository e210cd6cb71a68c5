use super::*;
use crate::uplink::Schedule;

const LINGER: Duration = Duration::from_secs(3);

impl Model {
    /// One that connects every hour, at a minute past it.
    fn scheduled(alerts_now: bool) -> Self {
        let mut model = Self::new((1..20).map(|id| parcel(id, 1, 1000)).collect(), Limits::NONE, 1);
        let (every, offset) = (Duration::from_secs(3600), Duration::from_secs(60));
        model.sender.follow(Schedule { every, offset, alerts_now, linger: LINGER });
        model.settle();
        assert!(model.connecting, "a start connects");
        model.connect();
        model
    }

    /// The same, asleep.
    fn asleep(alerts_now: bool) -> Self {
        let mut model = Self::scheduled(alerts_now);
        model.go_on_while_connected(&Verdict::Taken);
        assert!(model.stored.is_empty() && model.now >= LINGER);
        model.assert_asleep_until(60);
        model
    }

    /// Answers all that is sent, until it hangs up.
    fn go_on_while_connected(&mut self, verdict: &Verdict) {
        for _ in 0..1000 {
            match self.unacknowledged.is_empty() {
                _ if !self.connected => return,
                true => self.sleep(),
                false => self.acknowledge(0, verdict.clone()),
            }
        }
        panic!("it never hangs up: {:?}", self.sender);
    }

    fn store(&mut self, parcel: Parcel) {
        self.stored.insert((parcel.priority, parcel.id), parcel);
        self.handle(Event::FramesAvailable);
    }

    fn assert_asleep_until(&self, second: u64) {
        assert_eq!(self.sender.state(), State::Sleeping { until: Duration::from_secs(second) });
    }
}

#[test]
fn a_schedule_connects_at_its_times_and_hangs_up_when_all_has_arrived() {
    let mut model = Model::asleep(true);
    model.store(parcel(21, 1, 1000));
    assert!(!model.connecting, "it waits");
    for hour in 0..3 {
        model.sleep();
        assert!(model.connecting);
        assert_eq!(model.now, Duration::from_secs(60 + 3600 * hour));
        model.connect();
        // What comes while it is connected goes as well.
        model.store(parcel(100 + hour as i64, 1, 1000));
        model.go_on_while_connected(&Verdict::Taken);
        assert!(model.stored.is_empty());
    }
}

#[test]
fn a_broker_that_is_away_is_asked_a_few_times_and_then_at_the_next_time() {
    let mut model = Model::asleep(true);
    for hour in 0..2 {
        model.sleep();
        for attempt in 1..=5 {
            assert!(model.connecting, "attempt {attempt}");
            if attempt == 3 {
                // A connection that does not last is no more than an attempt.
                model.connect();
            }
            model.disconnect(Loss::Broken);
            if attempt < 5 {
                model.sleep();
            }
        }
        model.assert_asleep_until(60 + 3600 * (hour + 1));
    }
}

#[test]
fn an_alert_connects_at_once_and_is_not_given_up() {
    let mut model = Model::asleep(true);
    model.store(parcel(21, 0, 100));
    for _ in 0..20 {
        assert!(model.connecting);
        model.disconnect(Loss::Broken);
        assert!(matches!(model.sender.state(), State::Waiting { .. }));
        model.sleep();
    }
    model.connect();
    model.go_on_while_connected(&Verdict::Taken);
    assert!(model.stored.is_empty());
}

#[test]
fn an_alert_waits_where_the_schedule_says_so() {
    let mut model = Model::asleep(false);
    model.store(parcel(21, 0, 100));
    assert!(!model.connecting);
    model.sleep();
    assert_eq!((model.connecting, model.now), (true, Duration::from_secs(60)));
}

#[test]
fn what_the_broker_does_not_take_is_no_reason_to_connect_before_the_next_time() {
    let mut model = Model::asleep(true);
    model.store(parcel(21, 0, 100));
    model.connect();
    model.go_on_while_connected(&Verdict::Refused(Refusal::NobodySubscribed));
    model.store(parcel(22, 0, 100));
    assert!(!model.connecting);
    model.sleep();
    assert!(model.connecting, "at its time it is tried again");

    let mut model = Model::asleep(true);
    model.limits.packet_bytes_max = 2000;
    model.store(Parcel { json: true, ..parcel(21, 0, 5000) });
    model.connect();
    model.go_on_while_connected(&Verdict::Taken);
    assert!(!model.connecting && !model.stored.is_empty());
    // It is given back first, so that whoever looks finds it.
    assert!(model.given_out.is_empty());
}

#[test]
fn a_connection_is_kept_while_receipts_are_to_come() {
    let mut model = Model::scheduled(true);
    model.sender.hold(true);
    while !model.stored.is_empty() || model.now < LINGER * 10 {
        model.now += Duration::from_secs(1);
        model.settle();
        model.acknowledge(0, Verdict::Taken);
    }
    assert!(model.connected);
    model.sender.hold(false);
    model.settle();
    assert!(!model.connected);
}
