package main

import (
	"context"
	"fmt"
	"log"

	"github.com/twmb/franz-go/pkg/kgo"
	"millrace"
)

func main() {
	ctx := context.Background()
	broker, err := millrace.Start(ctx, millrace.Config{DataDir: "./data"})
	if err != nil {
		log.Fatal(err)
	}
	defer broker.Shutdown(ctx)
	client, err := kgo.NewClient(kgo.SeedBrokers(broker.Addr()), kgo.AllowAutoTopicCreation(), kgo.ConsumeTopics("greetings"))
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	if err := client.ProduceSync(ctx, &kgo.Record{Topic: "greetings", Value: []byte("hello")}).FirstErr(); err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(client.PollFetches(ctx).Records()[0].Value))
}
