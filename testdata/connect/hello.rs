// Three records to the topic hello and back, with rdkafka.
use rdkafka::consumer::{CommitMode, Consumer, StreamConsumer};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{util::Timeout, ClientConfig, Message};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let brokers = std::env::args().nth(1).or(std::env::var("MILLRACE_BROKERS").ok());
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers.unwrap_or("127.0.0.1:9092".into()));

    let producer: FutureProducer = config.create()?;
    for value in ["one", "two", "three"] {
        let record = FutureRecord::<(), _>::to("hello").payload(value);
        producer.send(record, Timeout::Never).await.map_err(|(error, _)| error)?; // until it is acknowledged
    }

    config.set("group.id", "hello").set("auto.offset.reset", "earliest").set("enable.auto.commit", "false");
    let consumer: StreamConsumer = config.create()?;
    consumer.subscribe(&["hello"])?;
    for _ in 0..3 {
        let message = consumer.recv().await?;
        println!("{}", message.payload_view::<str>().transpose()?.unwrap_or("(null)"));
        consumer.commit_message(&message, CommitMode::Sync)?;
    }
    Ok(())
}
