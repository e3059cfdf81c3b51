import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import javax.net.ssl.HttpsURLConnection;

/** Sends a request with both of Java's own clients. */
class Client {
    public static void main(String[] arguments) throws Exception {
        URI uri = URI.create(arguments[0] + "/echo");
        String credential = "Bearer " + System.getenv("API_KEY");
        HttpRequest request = HttpRequest.newBuilder(uri).header("Authorization", credential).build();
        var answer = HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString());
        System.out.println("HttpClient " + answer.statusCode() + " " + answer.version());
        var connection = (HttpsURLConnection) uri.toURL().openConnection();
        connection.setRequestProperty("Authorization", credential);
        System.out.println("HttpsURLConnection " + connection.getResponseCode());
    }
}
