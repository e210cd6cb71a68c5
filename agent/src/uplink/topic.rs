//! Topics: where each stream is published.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use rtlive_core::plan::Plan;
use rtlive_core::template::{Piece, Template};

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

    /// Where a stream is published.
    pub(super) fn of(&mut self, stream: &Arc<str>) -> Arc<str> {
        if let Some(topic) = self.known.get(stream) {
            return topic.clone();
        }
        let topic: Arc<str> = self.render(stream).into();
        self.known.insert(stream.clone(), topic.clone());
        topic
    }

    fn render(&self, stream: &str) -> String {
        let own = self.plan.stream_named(stream).and_then(|id| self.plan.streams.get(id.index())?.topic.as_ref());
        let fill = |piece: &Piece| -> Option<Cow<'_, str>> {
            match piece {
                Piece::Name { name, argument: None } => match name.as_str() {
                    "agent" => Some(self.plan.agent.as_ref().into()),
                    "stream" => Some(stream.to_owned().into()),
                    name => self.plan.labels.get(name.strip_prefix("label.")?).map(Into::into),
                },
                _ => None,
            }
        };
        // The configuration's check lets no other place through; a backlog must be sendable all the same.
        own.unwrap_or(&self.default).render(fill).unwrap_or_else(|_| format!("rtlive/{}/{stream}", self.plan.agent))
    }
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
            streams: vec![stream("raw", None), stream("json", Some("plants/{label.site}/{agent}/j"))],
            rules: Vec::new(),
            quality: Vec::new(),
            derived: Vec::new(),
            ladders: Vec::new(),
        };
        let mut topics = Topics::new(plan.into(), "rtlive/{agent}/{stream}".parse().unwrap());
        for (stream, topic) in [
            ("raw", "rtlive/gw-042/raw"),
            ("json", "plants/plant-7/gw-042/j"),
            ("of_before_the_reload", "rtlive/gw-042/of_before_the_reload"),
        ] {
            assert_eq!(&*topics.of(&stream.into()), topic);
            assert_eq!(&*topics.of(&stream.into()), topic);
        }
    }
}
