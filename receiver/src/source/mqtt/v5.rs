//! MQTT 5.

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{ConnectProperties, ConnectReturnCode, Filter, Packet, Publish, SubscribeReasonCode};
use rumqttc::v5::{AsyncClient, ClientError, ConnectionError, Event, EventLoop, MqttOptions, StateError};

use super::{
    Arrived, CONNECT_WITHIN, Failure, Heard, KEEP_ALIVE, PACKET_BYTES_MAX, REQUESTS_MAX, Wire, credentials, host,
    network_options, transport,
};
use crate::config::MqttConfig;
use crate::told::told;

pub(super) struct Loop {
    events: Box<EventLoop>,
    is_connected: bool,
}

pub(super) fn client(config: &MqttConfig) -> Result<(AsyncClient, Loop), Failure> {
    let mut options = MqttOptions::new(&config.client_id, host(&config.broker), config.broker.address.port);
    let mut properties = ConnectProperties::new();
    // Seconds in 32 bits, of which the last value means "for ever" (MQTT 5.0, section 3.1.2.11.2).
    properties.session_expiry_interval = Some(u32::try_from(config.session.as_secs()).unwrap_or(u32::MAX));
    properties.receive_maximum = Some(config.inflight);
    properties.max_packet_size = Some(PACKET_BYTES_MAX as u32);
    options
        .set_clean_start(false)
        .set_manual_acks(true)
        .set_keep_alive(KEEP_ALIVE)
        .set_connect_properties(properties)
        .set_connection_timeout(CONNECT_WITHIN.as_secs())
        .set_transport(transport(config)?);
    options.set_network_options(network_options());
    if let Some((username, password)) = credentials(config)? {
        options.set_credentials(username, password);
    }
    let (client, events) = AsyncClient::new(options, REQUESTS_MAX);
    Ok((client, Loop { events: Box::new(events), is_connected: false }))
}

pub(super) fn subscribe(client: &AsyncClient, filters: &[String], obsolete: &[String]) -> Result<(), Failure> {
    obsolete.iter().try_for_each(|filter| client.try_unsubscribe(filter).map_err(full))?;
    client.try_subscribe_many(filters.iter().map(|filter| Filter::new(filter.clone(), QoS::AtLeastOnce))).map_err(full)
}

pub(super) fn acknowledge(client: &AsyncClient, packet: u16) -> Result<(), Failure> {
    let mut message = Publish::new("", QoS::AtLeastOnce, "", None);
    message.pkid = packet;
    client.try_ack(&message).map_err(full)
}

pub(super) fn publish(client: &AsyncClient, topic: String, message: Vec<u8>) -> Result<(), Failure> {
    client.try_publish(topic, QoS::AtMostOnce, false, message).map_err(full)
}

/// The library takes no more requests: the connection is gone.
fn full(error: ClientError) -> Failure {
    Failure::of(told(&error))
}

impl Wire for Loop {
    async fn next(&mut self) -> Result<Heard, Failure> {
        match self.events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(answer))) => {
                self.is_connected = true;
                if answer.properties.is_some_and(|properties| properties.server_keep_alive == Some(0)) {
                    // The broker asks for no keep alive (section 3.2.2.3.14), which the library takes for one of no length.
                    self.events.options.set_keep_alive(KEEP_ALIVE);
                }
                Ok(Heard::Connected)
            }
            Ok(Event::Incoming(Packet::SubAck(answer))) => {
                let granted = |code: &SubscribeReasonCode| matches!(code, SubscribeReasonCode::Success(_));
                Ok(Heard::Subscribed(answer.return_codes.iter().map(granted).collect()))
            }
            Ok(Event::Incoming(Packet::Publish(message))) => Ok(Heard::Message(Arrived {
                packet: (message.qos != QoS::AtMostOnce).then_some(message.pkid),
                topic: String::from_utf8_lossy(&message.topic).into_owned(),
                payload: message.payload.into(),
            })),
            Ok(_) => Ok(Heard::Nothing),
            Err(error) => Err(failure(&error, self.is_connected)),
        }
    }
}

fn failure(error: &ConnectionError, is_connected: bool) -> Failure {
    let (text, version_refused) = match error {
        ConnectionError::ConnectionRefused(
            ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized,
        ) => ("the broker refused the login (check `username` and `password`)".into(), false),
        ConnectionError::ConnectionRefused(code) => {
            let of_version = [ConnectReturnCode::UnsupportedProtocolVersion, ConnectReturnCode::RefusedProtocolVersion]
                .contains(code);
            (format!("the broker refused: {code:?}"), of_version)
        }
        // A broker of 3.1.1 answers in a form that version 5 does not know, or closes the connection (MQTT 3.1.1, section 3.1.2.2).
        ConnectionError::MqttState(StateError::Deserialization(_) | StateError::ConnectionAborted) => {
            (told(error), !is_connected)
        }
        ConnectionError::MqttState(StateError::Io(io)) | ConnectionError::Io(io) => {
            (told(error), !is_connected && io.kind() != std::io::ErrorKind::ConnectionRefused)
        }
        error => (told(error), false),
    };
    Failure { text, version_refused }
}
