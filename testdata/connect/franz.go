// Three records to the topic hello and back, with franz-go.
package main

import (
	"cmp"
	"context"
	"fmt"
	"log"
	"os"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"
)

func main() {
	brokers := cmp.Or(strings.Join(os.Args[1:], ","), os.Getenv("MILLRACE_BROKERS"), "127.0.0.1:9092")
	client, err := kgo.NewClient(
		kgo.SeedBrokers(strings.Split(brokers, ",")...),
		kgo.DefaultProduceTopic("hello"), kgo.AllowAutoTopicCreation(),
		kgo.ConsumerGroup("hello"), kgo.ConsumeTopics("hello"),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit())
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	ctx := context.Background()
	if err := client.ProduceSync(ctx, kgo.StringRecord("one"), kgo.StringRecord("two"), kgo.StringRecord("three")).FirstErr(); err != nil {
		log.Fatal(err)
	}
	for read := 0; read < 3; {
		fetches := client.PollRecords(ctx, 3-read)
		if err := fetches.Err(); err != nil {
			log.Fatal(err)
		}
		for _, record := range fetches.Records() {
			fmt.Println(string(record.Value))
			read++
		}
		if err := client.CommitUncommittedOffsets(ctx); err != nil {
			log.Fatal(err)
		}
	}
}
