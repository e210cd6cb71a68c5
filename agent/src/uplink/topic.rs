//! Topics: where each stream is published.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use rtlive_core::plan::Plan;
use rtlive_core::template::{Piece, Template, partition, partitions};

/// The topics of the streams.
#[derive(Debug)]
pub(super) struct Topics {
    plan: Arc<Plan>,
    default: Template,
    known: BTreeMap<Arc<str>, Arc<str>>,
}

impl Topics {
    /// The streams of `plan`; one without a topic of its own, or of an earlier configuration, is published at `default`.
    pub(super) fn new(plan: Arc<Plan>, default: Template) -> Self {
        Self { plan, default, known: BTreeMap::new() }
    }

    /// Where a message of a stream is published.
    pub(super) fn of(&mut self, stream: &Arc<str>, message: &[u8]) -> Arc<str> {
        if let Some(topic) = self.known.get(stream) {
            return topic.clone();
        }
        let topic: Arc<str> = self.render(stream, message).into();
        if !self.template(stream).is_some_and(names_series) {
            self.known.insert(stream.clone(), topic.clone());
        }
        topic
    }

    /// Below which topic the schemas of this agent are published: that of a stream `schema`, a name that no stream has.
    pub(super) fn of_schemas(&self) -> String {
        self.render("schema", &[])
    }

    /// The stream's own template.
    fn template(&self, stream: &str) -> Option<&Template> {
        self.plan.stream_named(stream).and_then(|id| self.plan.streams.get(id.index())?.topic.as_ref())
    }

    fn render(&self, stream: &str, message: &[u8]) -> String {
        let agent = &*self.plan.agent;
        let fill = |piece: &Piece| -> Option<Cow<'_, str>> {
            let Piece::Name { name, argument } = piece else { return None };
            match (name.as_str(), argument) {
                ("agent", None) => Some(agent.into()),
                ("stream", None) => Some(stream.to_owned().into()),
                ("series", None) => series(message).map(Into::into),
                ("partition", Some(of)) => Some(partition(agent, partitions(of)?).to_string().into()),
                (name, None) => self.plan.labels.get(name.strip_prefix("label.")?).map(Into::into),
                _ => None,
            }
        };
        // The configuration's check lets no other place through; a backlog of an earlier one must be sendable all the same.
        let template = self.template(stream).unwrap_or(&self.default);
        template.render(fill).unwrap_or_else(|_| format!("rtlive/{agent}/{stream}"))
    }
}

fn names_series(template: &Template) -> bool {
    template.pieces().iter().any(|piece| matches!(piece, Piece::Name { name, argument: None } if name == "series"))
}

/// The series of a message that is one record as JSON.
fn series(message: &[u8]) -> Option<String> {
    let record: serde_json::Value = serde_json::from_slice(message).ok()?;
    record.get("series")?.as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtlive_core::plan::{BatchLimit, Format, Priority, StreamKind, StreamPlan};

    #[test]
    fn streams_have_their_own_topic_or_the_uplinks() {
        let stream = |name: &str, topic: Option<&str>| StreamPlan {
            name: name.into(),
            kind: StreamKind::Reserved,
            priority: Priority::Live,
            format: Format::Frame,
            batch: BatchLimit::Auto,
            topic: topic.map(|topic| topic.parse().unwrap()),
            class: "process".into(),
            bytes_max: None,
            age_max: None,
            order: Default::default(),
            evict: Default::default(),
        };
        let plan = Plan {
            agent: "gw-042".into(),
            labels: [("site".to_owned(), "plant-7".to_owned())].into(),
            inputs: Vec::new(),
            streams: vec![
                stream("raw", None),
                stream("json", Some("plants/{label.site}/{agent}/j")),
                stream("parted", Some("p/{partition:16}/{agent}")),
                stream("each", Some("each/{series}")),
            ],
            rules: Vec::new(),
            quality: Vec::new(),
            derived: Vec::new(),
            ladders: Vec::new(),
        };
        let mut topics = Topics::new(plan.into(), "rtlive/{agent}/{stream}".parse().unwrap());
        for (stream, topic) in [
            ("raw", "rtlive/gw-042/raw"),
            ("json", "plants/plant-7/gw-042/j"),
            ("parted", "p/10/gw-042"),
            ("of_before_the_reload", "rtlive/gw-042/of_before_the_reload"),
            // Sealed before its topic had the series.
            ("each", "rtlive/gw-042/each"),
        ] {
            assert_eq!(&*topics.of(&stream.into(), b"\xd9"), topic);
            assert_eq!(&*topics.of(&stream.into(), b"\xd9"), topic);
        }
        for series in ["boiler/temperature", "gps/speed"] {
            let message = format!("{{\"agent\":\"gw-042\",\"seq\":1,\"series\":\"{series}\",\"value\":1}}");
            assert_eq!(*topics.of(&"each".into(), message.as_bytes()), format!("each/{series}"));
        }
    }
}
