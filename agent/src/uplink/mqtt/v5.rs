//! MQTT 5.

use std::error::Error;
use std::time::Duration;

use rtlive_core::uplink::{Limits, Loss, Refusal, Verdict, sender};
use rumqttc::Outgoing;
use rumqttc::v5::mqttbytes::Error as PacketError;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, ConnectReturnCode, DisconnectReasonCode, LastWill, Packet, PubAckReason, SubscribeReasonCode,
};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, MqttOptions, StateError};

use super::{
    Failure, Heard, LinkError, Peer, RECEIVED_BYTES_MAX, REQUESTS_MAX, Wire, credentials, host, is_closed,
    network_options, transport,
};

/// The shortest keep alive that the library takes.
const KEEP_ALIVE_MIN: Duration = Duration::from_secs(5);

pub(super) struct Loop {
    events: Box<EventLoop>,
    keep_alive: Duration,
    connected: bool,
}

pub(super) fn client(peer: &Peer, offline: Vec<u8>) -> Result<(AsyncClient, Loop), LinkError> {
    let keep_alive = peer.keep_alive.max(KEEP_ALIVE_MIN);
    let mut options = MqttOptions::new(&peer.client_id, host(&peer.broker), peer.broker.address.port);
    options
        .set_clean_start(true)
        .set_keep_alive(keep_alive)
        .set_max_packet_size(Some(RECEIVED_BYTES_MAX))
        .set_outgoing_inflight_upper_limit(sender::MESSAGES_MAX)
        .set_connection_timeout(sender::ACKNOWLEDGEMENT_WAIT_MAX.as_secs())
        .set_last_will(LastWill::new(&peer.status_topic, offline, QoS::AtLeastOnce, true, None))
        .set_transport(transport(peer)?);
    options.set_network_options(network_options(peer));
    if let Some((username, password)) = credentials(peer)? {
        options.set_credentials(username, password);
    }
    let (client, events) = AsyncClient::new(options, REQUESTS_MAX);
    Ok((client, Loop { events: Box::new(events), keep_alive, connected: false }))
}

impl Wire for Loop {
    async fn next(&mut self) -> Result<Heard, Failure> {
        match self.events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(answer))) => self.welcome(&answer),
            Ok(event) => Ok(heard(event)),
            Err(error) => Err(failure(&error, self.connected)),
        }
    }

    fn rest(&mut self) -> Vec<Heard> {
        self.events.state.events.drain(..).map(heard).collect()
    }
}

impl Loop {
    fn welcome(&mut self, answer: &ConnAck) -> Result<Heard, Failure> {
        self.connected = true;
        let Some(properties) = &answer.properties else { return Ok(Heard::Connected(Limits::NONE)) };
        if properties.max_qos == Some(0) {
            return Err(Failure {
                cause: "the broker acknowledges no messages (its maximum QoS is 0)".into(),
                hint: Some("nothing would be known to arrive: use another broker".into()),
                loss: Loss::Refused,
                version_refused: false,
            });
        }
        if properties.server_keep_alive == Some(0) {
            // The broker asks for no keep alive (section 3.2.2.3.14), which the library takes for one of no length.
            self.events.options.set_keep_alive(self.keep_alive);
        }
        Ok(Heard::Connected(Limits {
            messages_max: properties.receive_max.unwrap_or(Limits::NONE.messages_max),
            packet_bytes_max: properties.max_packet_size.unwrap_or(Limits::NONE.packet_bytes_max),
        }))
    }
}

fn heard(event: Event) -> Heard {
    match event {
        Event::Outgoing(Outgoing::Publish(id)) => Heard::Sent(id),
        Event::Outgoing(Outgoing::Disconnect) => Heard::Goodbye,
        Event::Incoming(Packet::PubAck(answer)) => Heard::Answered(answer.pkid, verdict(answer.reason)),
        Event::Incoming(Packet::Publish(message)) => Heard::Received(message.payload.into()),
        Event::Incoming(Packet::SubAck(answer))
            if !answer.return_codes.iter().all(|code| matches!(code, SubscribeReasonCode::Success(_))) =>
        {
            Heard::SubscriptionRefused
        }
        _ => Heard::Nothing,
    }
}

fn verdict(reason: PubAckReason) -> Verdict {
    Verdict::Refused(match reason {
        PubAckReason::Success => return Verdict::Taken,
        PubAckReason::NoMatchingSubscribers => Refusal::NobodySubscribed,
        PubAckReason::NotAuthorized => Refusal::NotAuthorized,
        PubAckReason::TopicNameInvalid => Refusal::TopicInvalid,
        PubAckReason::QuotaExceeded => Refusal::QuotaExceeded,
        PubAckReason::PayloadFormatInvalid => Refusal::PayloadInvalid,
        PubAckReason::UnspecifiedError
        | PubAckReason::ImplementationSpecificError
        | PubAckReason::PacketIdentifierInUse => Refusal::Unspecified,
    })
}

fn failure(error: &ConnectionError, connected: bool) -> Failure {
    let root: &(dyn Error + 'static) = match error {
        ConnectionError::ConnectionRefused(code) => return refused(*code),
        ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, reason_string }) => {
            return sent_away(*reason_code, reason_string.as_deref());
        }
        ConnectionError::MqttState(StateError::ConnectionAborted) => return Failure::closed(connected),
        ConnectionError::Io(io)
        | ConnectionError::MqttState(StateError::Io(io) | StateError::Deserialization(PacketError::Io(io))) => {
            if is_closed(io) {
                return Failure::closed(connected);
            }
            io
        }
        ConnectionError::MqttState(StateError::Deserialization(_)) if !connected => {
            return Failure { version_refused: true, ..Failure::of(error) };
        }
        ConnectionError::MqttState(StateError::AwaitPingResp) => {
            let cause = "the broker did not answer a ping".into();
            return Failure { cause, hint: None, loss: Loss::Broken, version_refused: false };
        }
        ConnectionError::Tls(rumqttc::v5::TlsError::Io(io)) => io,
        error => error,
    };
    Failure::of(root)
}

/// What a CONNACK with an error means (section 3.2.2.2).
fn refused(code: ConnectReturnCode) -> Failure {
    let version_refused =
        matches!(code, ConnectReturnCode::UnsupportedProtocolVersion | ConnectReturnCode::RefusedProtocolVersion);
    let (loss, hint) = match code {
        ConnectReturnCode::BadUserNamePassword
        | ConnectReturnCode::NotAuthorized
        | ConnectReturnCode::BadAuthenticationMethod => return Failure::login_refused(),
        ConnectReturnCode::BadClientId | ConnectReturnCode::ClientIdentifierNotValid => {
            (Loss::Refused, Some("the broker does not take the client id; set `client_id`"))
        }
        ConnectReturnCode::Banned => (Loss::Refused, Some("this client was banned at the broker")),
        ConnectReturnCode::RetainNotSupported => {
            (Loss::Refused, Some("the broker keeps no retained messages, which the status needs"))
        }
        ConnectReturnCode::QoSNotSupported => (Loss::Refused, Some("the broker acknowledges no messages")),
        ConnectReturnCode::ServerUnavailable
        | ConnectReturnCode::ServiceUnavailable
        | ConnectReturnCode::ServerBusy
        | ConnectReturnCode::QuotaExceeded
        | ConnectReturnCode::UseAnotherServer
        | ConnectReturnCode::ServerMoved
        | ConnectReturnCode::ConnectionRateExceeded => (Loss::Busy, None),
        _ => (Loss::Refused, None),
    };
    Failure { cause: format!("the broker refused: {code:?}"), hint: hint.map(str::to_owned), loss, version_refused }
}

/// What a DISCONNECT of the broker means (section 3.14.2.1).
fn sent_away(code: DisconnectReasonCode, reason: Option<&str>) -> Failure {
    let (loss, hint) = match code {
        DisconnectReasonCode::SessionTakenOver => {
            (Loss::TakenOver, Some("another client connected with our client id: two agents with one id?"))
        }
        DisconnectReasonCode::ServerBusy
        | DisconnectReasonCode::ServerShuttingDown
        | DisconnectReasonCode::QuotaExceeded
        | DisconnectReasonCode::MessageRateTooHigh
        | DisconnectReasonCode::UseAnotherServer
        | DisconnectReasonCode::ServerMoved
        | DisconnectReasonCode::ConnectionRateExceeded => (Loss::Busy, None),
        DisconnectReasonCode::NotAuthorized
        | DisconnectReasonCode::TopicNameInvalid
        | DisconnectReasonCode::PacketTooLarge
        | DisconnectReasonCode::RetainNotSupported
        | DisconnectReasonCode::QoSNotSupported => (Loss::Refused, None),
        _ => (Loss::Broken, None),
    };
    let cause = match reason {
        Some(reason) => format!("the broker closed the connection: {code:?}, {reason}"),
        None => format!("the broker closed the connection: {code:?}"),
    };
    Failure { cause, hint: hint.map(str::to_owned), loss, version_refused: false }
}
