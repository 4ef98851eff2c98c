package kafka

import (
	"strconv"
	"strings"
	"time"

	"millrace/cli/term"

	"github.com/twmb/franz-go/pkg/kgo"
	urfave "github.com/urfave/cli/v2"
)

const (
	// MaxBuffered bounds the records, and MaxBufferedBytes the bytes, that are
	// read and not yet acknowledged.
	MaxBuffered      = 100_000
	MaxBufferedBytes = 64 << 20

	// UnknownRetries is how often a client believes that a topic is missing
	// before it says so: 2.5 s with backoff, for a topic being created by the
	// first record.
	UnknownRetries = 45
)

// ProducerOptions turns the flags into a producer's settings.
func ProducerOptions(c *urfave.Context) ([]kgo.Opt, error) {
	codec, ok := map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
		"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	}[c.String("compression")]
	if !ok {
		return nil, term.Usage("-z %q: it is one of none, gzip, snappy, lz4, zstd", c.String("compression"))
	}
	options := []kgo.Opt{
		kgo.ProducerBatchCompression(codec),
		kgo.AllowAutoTopicCreation(), // the broker decides: auto.create.topics.enable
		kgo.UnknownTopicRetries(UnknownRetries),
		kgo.MaxBufferedRecords(MaxBuffered),
		kgo.MaxBufferedBytes(MaxBufferedBytes),
		kgo.ProduceRequestTimeout(10 * time.Second),
	}
	switch c.String("acks") {
	case "all", "-1":
		// Giving up a record in flight is safe here: the producer ends with it.
		options = append(options, kgo.RequiredAcks(kgo.AllISRAcks()), kgo.AllowIdempotentProduceCancellation())
	case "1":
		options = append(options, kgo.RequiredAcks(kgo.LeaderAck()), kgo.DisableIdempotentWrite())
	case "0":
		options = append(options, kgo.RequiredAcks(kgo.NoAck()), kgo.DisableIdempotentWrite())
	default:
		return nil, term.Usage("--acks %q: it is one of all, 1, 0", c.String("acks"))
	}
	if d := c.Duration("timeout"); d > 0 {
		options = append(options, kgo.RecordDeliveryTimeout(d))
	}
	if c.IsSet("partition") {
		if c.Int("partition") < 0 {
			return nil, term.Usage("-p %d: partitions are counted from 0", c.Int("partition"))
		}
		options = append(options, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	}
	return options, nil
}

// ParseRate reads records a second: "100", "100/s", "0.5/s". 0: as fast as it goes.
func ParseRate(s string) (float64, error) {
	if s == "" {
		return 0, nil
	}
	n, err := strconv.ParseFloat(strings.TrimSuffix(s, "/s"), 64)
	if err != nil || !(n > 0 && n <= 1e9) {
		return 0, term.Usage("--rate %q: it is a number of records a second, such as 100/s", s)
	}
	return n, nil
}
