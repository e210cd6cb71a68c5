//! MQTT 3.1.1. How many messages may be unacknowledged is the broker's to say.

use rumqttc::{
    AsyncClient, ClientError, ConnectReturnCode, ConnectionError, Event, EventLoop, MqttOptions, Packet, Publish, QoS,
    SubscribeFilter, SubscribeReasonCode,
};

use super::{
    Arrived, Failure, Heard, KEEP_ALIVE, PACKET_BYTES_MAX, REQUESTS_MAX, SENT_BYTES_MAX, Wire, credentials, host,
    network_options, transport,
};
use crate::config::MqttConfig;
use crate::told::told;

pub(super) struct Loop(Box<EventLoop>);

pub(super) fn client(config: &MqttConfig) -> Result<(AsyncClient, Loop), Failure> {
    let mut options = MqttOptions::new(&config.client_id, host(&config.broker), config.broker.address.port);
    options
        .set_clean_session(false)
        .set_manual_acks(true)
        .set_keep_alive(KEEP_ALIVE)
        .set_max_packet_size(PACKET_BYTES_MAX, SENT_BYTES_MAX)
        .set_transport(transport(config)?);
    if let Some((username, password)) = credentials(config)? {
        options.set_credentials(username, password);
    }
    let (client, mut events) = AsyncClient::new(options, REQUESTS_MAX);
    events.set_network_options(network_options());
    Ok((client, Loop(Box::new(events))))
}

pub(super) fn subscribe(client: &AsyncClient, filters: &[String], obsolete: &[String]) -> Result<(), Failure> {
    obsolete.iter().try_for_each(|filter| client.try_unsubscribe(filter).map_err(full))?;
    client
        .try_subscribe_many(filters.iter().map(|filter| SubscribeFilter::new(filter.clone(), QoS::AtLeastOnce)))
        .map_err(full)
}

pub(super) fn acknowledge(client: &AsyncClient, packet: u16) -> Result<(), Failure> {
    let mut message = Publish::new("", QoS::AtLeastOnce, "");
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
        match self.0.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(_))) => Ok(Heard::Connected),
            Ok(Event::Incoming(Packet::SubAck(answer))) => {
                let granted = |code: &SubscribeReasonCode| matches!(code, SubscribeReasonCode::Success(_));
                Ok(Heard::Subscribed(answer.return_codes.iter().map(granted).collect()))
            }
            Ok(Event::Incoming(Packet::Publish(message))) => Ok(Heard::Message(Arrived {
                packet: (message.qos != QoS::AtMostOnce).then_some(message.pkid),
                topic: message.topic,
                payload: message.payload.into(),
            })),
            Ok(_) => Ok(Heard::Nothing),
            Err(error) => Err(failure(&error)),
        }
    }
}

fn failure(error: &ConnectionError) -> Failure {
    match error {
        ConnectionError::ConnectionRefused(
            ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized,
        ) => Failure::of("the broker refused the login (check `username` and `password`)"),
        error => Failure::of(told(error)),
    }
}
