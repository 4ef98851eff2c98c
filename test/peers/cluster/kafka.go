package cluster

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"millrace/peers/process"
)

// How kafka-run-class.sh and kafka-server-start.sh start a broker's JVM. Left out
// are its garbage collector's log and JMX, which would only cost it.
var kafkaJVM = []string{"-Xmx1G", "-Xms1G", "-server", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-XX:InitiatingHeapOccupancyPercent=35",
	"-XX:+ExplicitGCInvokesConcurrent", "-XX:MaxInlineLevel=15", "-Djava.awt.headless=true"}

// layOutKafka sets brokers up in KRaft's combined mode, each a broker and one of
// three controllers. The folders are formatted here, in seconds which count for
// nothing.
func (c *Cluster) layOutKafka(ctx context.Context, programs *Programs, dir string, controllers []string) error {
	// As in the release's config/log4j2.yaml: INFO, to a file.
	logging := filepath.Join(dir, "log4j2.properties")
	err := writeFile(logging,
		"status = warn",
		"rootLogger.level = info",
		"rootLogger.appenderRef.out.ref = out",
		"appender.out.type = Console",
		"appender.out.name = out",
		"appender.out.layout.type = PatternLayout",
		"appender.out.layout.pattern = [%d] %p %m (%c)%n")
	if err != nil {
		return err
	}
	java := func(options []string, class string, args ...string) *exec.Cmd {
		all := append([]string{}, options...)
		all = append(all, "-cp", programs.KafkaJars, "-Dlog4j2.configurationFile="+logging, class)
		return exec.Command(programs.Java, append(all, args...)...)
	}
	var voters []string
	for i, address := range controllers {
		voters = append(voters, fmt.Sprintf("%d@%s", i+1, address))
	}
	id := make([]byte, 16)
	rand.Read(id)
	id[0] &= 0x7f // an id that begins with "-" would be taken for an option

	errs := make([]error, len(c.Brokers))
	var formatting sync.WaitGroup
	for i, b := range c.Brokers {
		properties := filepath.Join(dir, fmt.Sprintf("server-%d.properties", i+1))
		b.command = func() *exec.Cmd { return java(kafkaJVM, "kafka.Kafka", properties) }
		err := writeFile(properties,
			"process.roles=broker,controller",
			fmt.Sprint("node.id=", i+1),
			"controller.quorum.voters="+strings.Join(voters, ","),
			fmt.Sprintf("listeners=PLAINTEXT://%s,CONTROLLER://%s", b.Address, controllers[i]),
			"advertised.listeners=PLAINTEXT://"+b.Address,
			"inter.broker.listener.name=PLAINTEXT",
			"controller.listener.names=CONTROLLER",
			"log.dirs="+b.data,
			// A cluster of three, run with care.
			"auto.create.topics.enable=false",
			"offsets.topic.replication.factor=3",
			"transaction.state.log.replication.factor=3",
			"transaction.state.log.min.isr=2",
			"min.insync.replicas=2",
			// Deleted topics free the disk before the next load, not a minute later.
			"log.segment.delete.delay.ms=1000")
		if err != nil {
			return err
		}
		formatting.Go(func() {
			_, errs[i] = process.Run(ctx, java([]string{"-Xmx256M", "-XX:TieredStopAtLevel=1"}, "kafka.tools.StorageTool", "format",
				"-t", base64.RawURLEncoding.EncodeToString(id), "-c", properties))
		})
	}
	formatting.Wait()
	for _, err := range errs {
		if err != nil {
			return fmt.Errorf("format: %w", err)
		}
	}
	return nil
}
