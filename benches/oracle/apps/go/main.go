// Services of a chain, instrumented with OpenTelemetry's SDK for Go.
//
//	oracle-go nethttp|chi|grpc PORT
//
// A service answers to `/work/{id}` and `/work/{id}/{part}`; gRPC to the methods `W{id}` and `W{id}P{part}` of
// `oracle.Chain`. Before it answers it asks ORACLE_NEXT for the same: as often as ORACLE_CALLS says, one after
// the other, or at once with ORACLE_PARALLEL=1. ORACLE_NEXT is `http://HOST:PORT` or `grpc://HOST:PORT`.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/go-chi/chi/v5"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
)

// next asks the next service of the chain.
type next func(ctx context.Context, id, part string) error

func toHTTP(base string) next {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 64
	client := http.Client{Transport: transport}
	if os.Getenv("ORACLE_SPANS") != "" {
		client.Transport = otelhttp.NewTransport(transport)
	}
	return func(ctx context.Context, id, part string) error {
		url := base + "/work/" + id
		if part != "" {
			url += "/" + part
		}
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		response, err := client.Do(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		if _, err := io.Copy(io.Discard, response.Body); err != nil {
			return err
		}
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("%s: %s", url, response.Status)
		}
		return nil
	}
}

// worker does the work of a request.
type worker struct {
	ask      next
	calls    int
	parallel bool
}

func (worker worker) work(ctx context.Context, id, part string) error {
	if worker.ask == nil {
		// Answers come in another order than questions.
		if number, err := strconv.Atoi(id); err == nil {
			time.Sleep(time.Duration(number%4) * time.Millisecond)
		}
		return nil
	}
	if worker.calls == 1 {
		return worker.ask(ctx, id, part)
	}
	failures := make(chan error, worker.calls)
	var group sync.WaitGroup
	for call := 1; call <= worker.calls; call++ {
		if !worker.parallel {
			failures <- worker.ask(ctx, id, strconv.Itoa(call))
			continue
		}
		group.Go(func() { failures <- worker.ask(ctx, id, strconv.Itoa(call)) })
	}
	group.Wait()
	close(failures)
	for err := range failures {
		if err != nil {
			return err
		}
	}
	return nil
}

func (worker worker) serve(response http.ResponseWriter, request *http.Request, id, part string) {
	if err := worker.work(request.Context(), id, part); err != nil {
		log.Print(err)
		http.Error(response, err.Error(), http.StatusBadGateway)
		return
	}
	io.WriteString(response, "ok\n")
}

func (worker worker) netHTTP() http.Handler {
	mux := http.NewServeMux()
	handle := func(response http.ResponseWriter, request *http.Request) {
		worker.serve(response, request, request.PathValue("id"), request.PathValue("part"))
	}
	mux.HandleFunc("GET /work/{id}", handle)
	mux.HandleFunc("GET /work/{id}/{part}", handle)
	return mux
}

func (worker worker) chi() http.Handler {
	router := chi.NewRouter()
	handle := func(response http.ResponseWriter, request *http.Request) {
		worker.serve(response, request, chi.URLParam(request, "id"), chi.URLParam(request, "part"))
	}
	router.Get("/work/{id}", handle)
	router.Get("/work/{id}/{part}", handle)
	return router
}

func main() {
	log.SetFlags(0)
	if len(os.Args) != 3 {
		log.Fatal("usage: oracle-go nethttp|chi|grpc PORT")
	}
	stopSDK := startSDK()
	worker := worker{parallel: os.Getenv("ORACLE_PARALLEL") == "1"}
	if address := os.Getenv("ORACLE_NEXT"); address != "" {
		worker.calls, _ = strconv.Atoi(os.Getenv("ORACLE_CALLS"))
		if target, isGRPC := strings.CutPrefix(address, "grpc://"); isGRPC {
			worker.ask = toGRPC(target)
		} else {
			worker.ask = toHTTP(address)
		}
	}
	listener, err := net.Listen("tcp", "127.0.0.1:"+os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	go func() {
		var handler http.Handler
		switch os.Args[1] {
		case "nethttp":
			handler = worker.netHTTP()
		case "chi":
			handler = worker.chi()
		case "grpc":
			log.Fatal(worker.serveGRPC(listener))
		default:
			log.Fatalf("unknown kind of service: %s", os.Args[1])
		}
		if os.Getenv("ORACLE_SPANS") != "" {
			handler = otelhttp.NewHandler(handler, "work")
		}
		log.Fatal(http.Serve(listener, handler))
	}()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	<-signals
	stopSDK()
}
