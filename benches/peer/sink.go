// Command peer takes whatever the OpenTelemetry eBPF profiler exports, throws it away and counts it.
//
// That profiler does not start without a collector that answers. This one answers every gRPC call
// with an empty message, which every OTLP export service accepts as full success, and needs none of
// OTLP's types for it. On SIGTERM it prints how many calls and bytes came in.
package main

import (
	"fmt"
	"net"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"

	"google.golang.org/grpc"
	_ "google.golang.org/grpc/encoding/gzip" // the profiler compresses its exports
)

// rawBytes hands messages through undecoded: the sink knows no message type.
type rawBytes struct{}

func (rawBytes) Name() string { return "proto" }

func (rawBytes) Marshal(message any) ([]byte, error) {
	payload, isBytes := message.(*[]byte)
	if !isBytes {
		return nil, fmt.Errorf("the sink sends only raw bytes, not %T", message)
	}
	return *payload, nil
}

func (rawBytes) Unmarshal(data []byte, message any) error {
	payload, isBytes := message.(*[]byte)
	if !isBytes {
		return fmt.Errorf("the sink receives only raw bytes, not %T", message)
	}
	*payload = append((*payload)[:0], data...)
	return nil
}

func main() {
	var calls, received atomic.Int64
	swallow := func(_ any, stream grpc.ServerStream) error {
		var request, emptyAnswer []byte
		if err := stream.RecvMsg(&request); err != nil {
			return err
		}
		calls.Add(1)
		received.Add(int64(len(request)))
		return stream.SendMsg(&emptyAnswer)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, "the sink cannot listen on loopback:", err)
		os.Exit(1)
	}
	server := grpc.NewServer(
		grpc.ForceServerCodec(rawBytes{}),
		grpc.UnknownServiceHandler(swallow),
		grpc.MaxRecvMsgSize(64<<20),
	)
	// Whoever started the sink reads this line to learn the port.
	fmt.Println(listener.Addr())

	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		<-stop
		server.Stop()
	}()
	if err := server.Serve(listener); err != nil {
		fmt.Fprintln(os.Stderr, "the sink stopped:", err)
		os.Exit(1)
	}
	fmt.Printf("{\"calls\":%d,\"bytes\":%d}\n", calls.Load(), received.Load())
}
