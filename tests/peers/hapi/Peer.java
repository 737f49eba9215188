// HAPI HL7 v2 as a receiver and as a sender. A line each, as tests/peers/receive.mjs and send.mjs have them:
// java -cp CLASSPATH Peer.java receive [KEYSTORE PASSWORD]   prints `port N`, then the control ID of each message; acknowledges with AA
// java -cp CLASSPATH Peer.java send PORT FILE...             prints `CODE CONTROL-ID` for each answer

import ca.uhn.hl7v2.DefaultHapiContext;
import ca.uhn.hl7v2.HapiContext;
import ca.uhn.hl7v2.app.Connection;
import ca.uhn.hl7v2.app.HL7Service;
import ca.uhn.hl7v2.model.Message;
import ca.uhn.hl7v2.protocol.ReceivingApplication;
import ca.uhn.hl7v2.util.Terser;
import ca.uhn.hl7v2.util.idgenerator.InMemoryIDGenerator;
import ca.uhn.hl7v2.validation.impl.ValidationContextFactory;
import java.net.ServerSocket;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;

public class Peer {
    public static void main(String[] args) throws Exception {
        HapiContext context = new DefaultHapiContext();
        context.setValidationContext(ValidationContextFactory.noValidation());
        // Its own control IDs are counted in memory, not in a file of the working folder.
        context.getParserConfiguration().setIdGenerator(new InMemoryIDGenerator());
        if (args[0].equals("receive")) {
            receive(context, args);
        } else {
            send(context, args);
        }
    }

    static void receive(HapiContext context, String[] args) throws Exception {
        boolean tls = args.length > 1;
        if (tls) {
            System.setProperty("javax.net.ssl.keyStore", args[1]);
            System.setProperty("javax.net.ssl.keyStorePassword", args[2]);
        }
        int port;
        try (ServerSocket probe = new ServerSocket(0)) {
            port = probe.getLocalPort();
        }
        HL7Service server = context.newServer(port, tls);
        server.registerApplication("*", "*", new ReceivingApplication<Message>() {
            public Message processMessage(Message message, Map<String, Object> metadata) {
                try {
                    System.out.println(new Terser(message).get("/MSH-10"));
                    return message.generateACK();
                } catch (Exception fault) {
                    throw new IllegalStateException(fault);
                }
            }

            public boolean canProcess(Message message) {
                return true;
            }
        });
        server.startAndWait();
        System.out.println("port " + port);
        Thread.currentThread().join();
    }

    static void send(HapiContext context, String[] args) throws Exception {
        Connection connection = context.newClient("127.0.0.1", Integer.parseInt(args[1]), false);
        for (int i = 2; i < args.length; i++) {
            String text = Files.readString(Path.of(args[i]), StandardCharsets.UTF_8).replaceAll("\r?\n", "\r");
            Message answer = connection.getInitiator().sendAndReceive(context.getGenericParser().parse(text));
            Terser terser = new Terser(answer);
            System.out.println(terser.get("/MSA-1") + " " + terser.get("/MSA-2"));
        }
        connection.close();
        System.exit(0);
    }
}
