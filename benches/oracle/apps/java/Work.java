import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.io.InputStream;
import java.net.HttpURLConnection;
import java.net.InetSocketAddress;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.util.concurrent.Executors;

/**
 * A service of a chain: {@code java Work PORT}, the JDK's server with a pool of threads. It answers to
 * {@code /work/{id}} and {@code /work/{id}/{part}} once ORACLE_NEXT has, asked ORACLE_CALLS times: with
 * HttpURLConnection, or with ORACLE_CLIENT=httpclient by java.net.http. OpenTelemetry's agent instruments it.
 */
public final class Work {
    private static final String NEXT = System.getenv("ORACLE_NEXT");
    private static final int CALLS = Integer.parseInt(System.getenv().getOrDefault("ORACLE_CALLS", "1"));
    private static final boolean BY_HTTP_CLIENT = "httpclient".equals(System.getenv("ORACLE_CLIENT"));
    private static final HttpClient CLIENT = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();

    private Work() {}

    private static void ask(String url) throws IOException, InterruptedException {
        if (BY_HTTP_CLIENT) {
            int status = CLIENT.send(HttpRequest.newBuilder(URI.create(url)).build(), BodyHandlers.ofString()).statusCode();
            if (status != 200) {
                throw new IOException(url + ": " + status);
            }
            return;
        }
        HttpURLConnection connection = (HttpURLConnection) URI.create(url).toURL().openConnection();
        try (InputStream body = connection.getInputStream()) {
            body.readAllBytes();
        }
    }

    private static void work(HttpExchange exchange) throws IOException {
        int status = 200;
        try {
            String[] path = exchange.getRequestURI().getPath().split("/");
            String id = path[2];
            if (NEXT == null) {
                // Answers come in another order than questions.
                Thread.sleep(Integer.parseInt(id) % 4);
            } else if (CALLS == 1) {
                ask(NEXT + exchange.getRequestURI().getPath());
            } else {
                for (int call = 1; call <= CALLS; call++) {
                    ask(NEXT + "/work/" + id + "/" + call);
                }
            }
        } catch (IOException | InterruptedException | RuntimeException failure) {
            System.err.println(failure);
            status = 502;
        }
        byte[] body = "ok\n".getBytes();
        exchange.sendResponseHeaders(status, body.length);
        exchange.getResponseBody().write(body);
        exchange.close();
    }

    public static void main(String[] arguments) throws IOException {
        InetSocketAddress address = new InetSocketAddress("127.0.0.1", Integer.parseInt(arguments[0]));
        HttpServer server = HttpServer.create(address, 128);
        server.createContext("/work/", Work::work);
        server.setExecutor(Executors.newFixedThreadPool(32));
        server.start();
    }
}
