package main

import (
	"context"
	"fmt"
	"log"
	"net"
	"os"
	"strconv"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/emptypb"
)

// The path of a gRPC request is its method. So that it names the request, the service has a method for each.
func method(id, part string) string {
	if part != "" {
		return "W" + id + "P" + part
	}
	return "W" + id
}

func toGRPC(target string) next {
	options := []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}
	if os.Getenv("ORACLE_SPANS") != "" {
		options = append(options, grpc.WithStatsHandler(otelgrpc.NewClientHandler()))
	}
	connection, err := grpc.NewClient(target, options...)
	if err != nil {
		log.Fatal(err)
	}
	return func(ctx context.Context, id, part string) error {
		return connection.Invoke(ctx, "/oracle.Chain/"+method(id, part), &emptypb.Empty{}, &emptypb.Empty{})
	}
}

func (worker worker) serveGRPC(listener net.Listener) error {
	requests, err := strconv.Atoi(os.Getenv("ORACLE_LAST_ID"))
	if err != nil {
		return fmt.Errorf("ORACLE_LAST_ID, the highest number of a request: %w", err)
	}
	options := []grpc.ServerOption{}
	if os.Getenv("ORACLE_SPANS") != "" {
		options = append(options, grpc.StatsHandler(otelgrpc.NewServerHandler()))
	}
	server := grpc.NewServer(options...)
	description := grpc.ServiceDesc{ServiceName: "oracle.Chain", HandlerType: (*any)(nil)}
	for id := range requests + 1 {
		for _, part := range []string{"", "1", "2"} {
			id := strconv.Itoa(id)
			handle := func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
				if err := decode(&emptypb.Empty{}); err != nil {
					return nil, err
				}
				return &emptypb.Empty{}, worker.work(ctx, id, part)
			}
			description.Methods = append(description.Methods, grpc.MethodDesc{MethodName: method(id, part), Handler: handle})
		}
	}
	server.RegisterService(&description, worker)
	return server.Serve(listener)
}
