package millrace_test

import (
	"context"
	"fmt"
	"log"

	"github.com/twmb/franz-go/pkg/kgo"

	"millrace"
)

// A broker in this process, with data that goes when it does.
func Example() {
	ctx := context.Background()
	broker, err := millrace.Start(ctx, millrace.Config{Ephemeral: true})
	if err != nil {
		log.Fatal(err)
	}
	defer broker.Shutdown(ctx)
	client, err := kgo.NewClient(kgo.SeedBrokers(broker.Addr()), kgo.AllowAutoTopicCreation(),
		kgo.DefaultProduceTopic("greetings"), kgo.ConsumeTopics("greetings"))
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	if err := client.ProduceSync(ctx, kgo.StringRecord("hello")).FirstErr(); err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(client.PollFetches(ctx).Records()[0].Value))
	// Output: hello
}
