// The group scenario (compat-tests/src/clients.rs says what it is) with franz-go.
// Arguments: bootstrap servers, prefix of topics, number of records for each codec.
package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

const keys = 100

var codecs = map[string]kgo.CompressionCodec{
	"none":   kgo.NoCompression(),
	"gzip":   kgo.GzipCompression(),
	"snappy": kgo.SnappyCompression(),
	"lz4":    kgo.Lz4Compression(),
	"zstd":   kgo.ZstdCompression(),
}

type scenario struct {
	servers, prefix string
	count           int

	mutex       sync.Mutex
	last        map[string]int
	seen        int
	redelivered int
	failure     error
}

type member struct {
	cancel   context.CancelFunc
	done     chan struct{}
	assigned atomic.Bool
}

func (s *scenario) fail(err error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.failure == nil {
		s.failure = err
	}
}

// A record again is a redelivery; a record out of turn is one lost or out of order.
func (s *scenario) take(r *kgo.Record) {
	number, err := strconv.Atoi(strings.SplitN(string(r.Value), " ", 2)[0])
	if err != nil {
		s.fail(err)
		return
	}
	name := r.Topic + "/" + string(r.Key)
	s.mutex.Lock()
	defer s.mutex.Unlock()
	expected, known := s.last[name]
	if known {
		expected += keys
	} else {
		expected, _ = strconv.Atoi(string(r.Key)[1:])
	}
	switch {
	case number == expected:
		s.last[name] = number
		s.seen++
	case number < expected:
		s.redelivered++
	case s.failure == nil:
		s.failure = fmt.Errorf("%s: %d came instead of %d", name, number, expected)
	}
}

func (s *scenario) topics() []string {
	var topics []string
	for codec := range codecs {
		topics = append(topics, s.prefix+"-"+codec)
	}
	return topics
}

func (s *scenario) join(name string) *member {
	ctx, cancel := context.WithCancel(context.Background())
	m := &member{cancel: cancel, done: make(chan struct{})}
	client, err := kgo.NewClient(
		kgo.SeedBrokers(s.servers), kgo.ClientID(name), kgo.ConsumerGroup(s.prefix),
		kgo.ConsumeTopics(s.topics()...), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.HeartbeatInterval(500*time.Millisecond), kgo.BlockRebalanceOnPoll(),
		kgo.AutoCommitMarks(),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, a map[string][]int32) {
			if len(a) > 0 {
				m.assigned.Store(true)
			}
		}),
		kgo.OnPartitionsRevoked(func(ctx context.Context, c *kgo.Client, _ map[string][]int32) {
			if err := c.CommitMarkedOffsets(ctx); err != nil {
				s.fail(err)
			}
		}),
	)
	if err != nil {
		s.fail(err)
		close(m.done)
		return m
	}
	go func() {
		defer close(m.done)
		defer client.CloseAllowingRebalance()
		for ctx.Err() == nil {
			fetches := client.PollFetches(ctx)
			fetches.EachRecord(s.take)
			client.MarkCommitRecords(fetches.Records()...)
			client.AllowRebalance()
		}
	}()
	return m
}

func (m *member) end() {
	m.cancel()
	<-m.done
}

func (s *scenario) produce(from, to int) error {
	for name, codec := range codecs {
		client, err := kgo.NewClient(kgo.SeedBrokers(s.servers),
			kgo.ProducerBatchCompression(codec), kgo.ProducerLinger(5*time.Millisecond))
		if err != nil {
			return err
		}
		for i := from; i < to; i++ {
			client.Produce(context.Background(), &kgo.Record{
				Topic: s.prefix + "-" + name,
				Key:   []byte("k" + strconv.Itoa(i%keys)),
				Value: []byte(strconv.Itoa(i) + " the same words again and again for " + name),
			}, func(_ *kgo.Record, err error) {
				if err != nil {
					s.fail(err)
				}
			})
		}
		err = client.Flush(context.Background())
		client.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *scenario) await(what string, condition func() bool) error {
	deadline := time.Now().Add(limit())
	for {
		s.mutex.Lock()
		holds, failure, seen := condition(), s.failure, s.seen
		s.mutex.Unlock()
		if failure != nil {
			return failure
		}
		if holds {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("no %s; records seen: %d", what, seen)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func limit() time.Duration {
	if seconds, err := strconv.Atoi(os.Getenv("COMPAT_LIMIT_S")); err == nil {
		return time.Duration(seconds) * time.Second
	}
	return 120 * time.Second
}

func (s *scenario) run() error {
	client, err := kgo.NewClient(kgo.SeedBrokers(s.servers))
	if err != nil {
		return err
	}
	admin := kadm.NewClient(client)
	created, err := admin.CreateTopics(context.Background(), 3, 1, nil, s.topics()...)
	if err == nil {
		err = created.Error()
	}
	// Apache Kafka answers before the partitions are led, and a producer's first batch that comes too early may end
	// up behind its second.
	leading := func() bool {
		offsets, err := admin.ListStartOffsets(context.Background(), s.topics()...)
		return err == nil && offsets.Error() == nil
	}
	if err == nil {
		err = s.await("leaders", leading)
	}
	client.Close()
	if err != nil {
		return err
	}
	first, second := s.count*4/10, s.count*7/10
	one, two := s.join("one"), s.join("two")
	if err := s.produce(0, first); err != nil {
		return err
	}
	half := first * len(codecs) / 2
	if err := s.await("first part", func() bool { return s.seen >= half }); err != nil {
		return err
	}
	three := s.join("three")
	if err := s.produce(first, second); err != nil {
		return err
	}
	if err := s.await("member that joined", three.assigned.Load); err != nil {
		return err
	}
	one.end()
	if err := s.produce(second, s.count); err != nil {
		return err
	}
	all := s.count * len(codecs)
	if err := s.await("end", func() bool { return s.seen == all }); err != nil {
		return err
	}
	two.end()
	three.end()
	return s.await("good end", func() bool { return true })
}

func main() {
	count, err := strconv.Atoi(os.Args[3])
	s := &scenario{servers: os.Args[1], prefix: os.Args[2], count: count, last: map[string]int{}}
	if err == nil {
		err = s.run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "failed:", err)
		os.Exit(1)
	}
	fmt.Printf("ok %d records, %d redelivered\n", s.seen, s.redelivered)
}
