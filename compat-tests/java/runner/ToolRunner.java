import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;

import org.apache.kafka.common.utils.Exit;

import java.io.BufferedReader;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.io.PrintStream;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.lang.reflect.Field;
import java.lang.reflect.InvocationTargetException;
import java.net.URL;
import java.net.URLClassLoader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;

/**
 * Runs many command lines of Kafka's tools in one JVM, each as if it had a process of its own.
 *
 * Reads one JSON object a line: {"id", "main", "args", "stdin"} runs a command, {"stop": id} runs
 * its shutdown hooks as a SIGTERM would. Answers one line a command: {"id", "status", "out", "err"}.
 *
 * A command is a thread group: what its threads print goes to its own buffers, what they read comes
 * from its own input, the first exit status counts, and a thread that asked for an exit is silent
 * from then on. The tools' own classes are loaded anew for each command: their statics start fresh.
 */
public final class ToolRunner {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final Map<ThreadGroup, Command> COMMANDS = new ConcurrentHashMap<>();
    private static final Map<String, Command> BY_ID = new ConcurrentHashMap<>();
    private static PrintStream answers;
    private static URL[] toolJars;

    /** Unwinds the thread that asked for an exit. */
    private static final class ExitTrap extends Error {
        ExitTrap() {
            super("exit", null, false, false);
        }
    }

    private static final class Command {
        final String id;
        final ThreadGroup group;
        final ByteArrayOutputStream out = new ByteArrayOutputStream();
        final ByteArrayOutputStream err = new ByteArrayOutputStream();
        final InputStream in;
        final List<Thread> hooks = new ArrayList<>();
        private final Set<Thread> exited = new HashSet<>();
        private Integer status;
        private boolean closed;
        private boolean hooksStarted;

        Command(String id, String stdin) {
            this.id = id;
            this.group = new ThreadGroup("command-" + id);
            this.in = new ByteArrayInputStream(stdin.getBytes(StandardCharsets.UTF_8));
        }

        synchronized void write(ByteArrayOutputStream to, byte[] bytes, int from, int length) {
            if (!closed && !exited.contains(Thread.currentThread())) {
                to.write(bytes, from, length);
            }
        }

        /** The first exit decides. A thread that exits would never run on: it is silent now. */
        synchronized void exit(int code) {
            if (status == null) {
                status = code;
            }
            exited.add(Thread.currentThread());
        }

        void runHooks() {
            List<Thread> mine = new ArrayList<>();
            synchronized (this) {
                if (hooksStarted) {
                    return;
                }
                hooksStarted = true;
                mine.addAll(hooks);
            }
            mine.addAll(takeRuntimeHooks(group));
            for (Thread hook : mine) {
                hook.start();
            }
            for (Thread hook : mine) {
                joinQuietly(hook, 20_000);
            }
        }

        synchronized ObjectNode finish() {
            closed = true;
            ObjectNode answer = JSON.createObjectNode();
            answer.put("id", id);
            answer.put("status", status == null ? 0 : status);
            answer.put("out", out.toString(StandardCharsets.UTF_8));
            answer.put("err", err.toString(StandardCharsets.UTF_8));
            return answer;
        }
    }

    /** A stream that belongs to the command of the thread that uses it. */
    private static final class Dispatch extends OutputStream {
        private final boolean isErr;

        Dispatch(boolean isErr) {
            this.isErr = isErr;
        }

        @Override
        public void write(int b) {
            write(new byte[] {(byte) b}, 0, 1);
        }

        @Override
        public void write(byte[] bytes, int from, int length) {
            Command command = current();
            if (command != null) {
                command.write(isErr ? command.err : command.out, bytes, from, length);
            }
        }
    }

    private static final class DispatchIn extends InputStream {
        @Override
        public int read() throws IOException {
            Command command = current();
            return command == null ? -1 : command.in.read();
        }

        @Override
        public int read(byte[] bytes, int from, int length) throws IOException {
            Command command = current();
            return command == null ? -1 : command.in.read(bytes, from, length);
        }
    }

    /** Loads the classes of the tools' jars itself and everything else from its parent. */
    private static final class ToolLoader extends URLClassLoader {
        ToolLoader() {
            super(toolJars, ToolRunner.class.getClassLoader());
        }

        @Override
        protected Class<?> loadClass(String name, boolean resolve) throws ClassNotFoundException {
            synchronized (getClassLoadingLock(name)) {
                Class<?> loaded = findLoadedClass(name);
                if (loaded == null && (name.startsWith("org.apache.kafka.tools.")
                        || name.startsWith("kafka."))) {
                    try {
                        loaded = findClass(name);
                    } catch (ClassNotFoundException e) {
                        loaded = null;
                    }
                }
                return loaded == null ? super.loadClass(name, resolve) : loaded;
            }
        }
    }

    @SuppressWarnings({"removal", "deprecation"})
    private static final class NoExit extends SecurityManager {
        @Override
        public void checkExit(int status) {
            trap(status);
        }

        @Override
        public void checkPermission(java.security.Permission permission) {
        }

        @Override
        public void checkPermission(java.security.Permission permission, Object context) {
        }
    }

    private static Command current() {
        for (ThreadGroup g = Thread.currentThread().getThreadGroup(); g != null; g = g.getParent()) {
            Command command = COMMANDS.get(g);
            if (command != null) {
                return command;
            }
        }
        return null;
    }

    private static void trap(int status) {
        Command command = current();
        if (command != null) {
            command.exit(status);
            throw new ExitTrap();
        }
    }

    private static void joinQuietly(Thread thread, long millis) {
        try {
            thread.join(millis);
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
    }

    /** Takes the hooks of one command out of the JVM's own list. */
    private static List<Thread> takeRuntimeHooks(ThreadGroup group) {
        List<Thread> taken = new ArrayList<>();
        try {
            Class<?> list = Class.forName("java.lang.ApplicationShutdownHooks");
            synchronized (list) {
                Field field = list.getDeclaredField("hooks");
                field.setAccessible(true);
                Map<?, ?> hooks = (Map<?, ?>) field.get(null);
                for (Object key : hooks.keySet()) {
                    Thread thread = (Thread) key;
                    if (thread.getThreadGroup() == group) {
                        taken.add(thread);
                    }
                }
                taken.forEach(hooks::remove);
            }
        } catch (ReflectiveOperationException e) {
            throw new IllegalStateException(e);
        }
        return taken;
    }

    private static String[] strings(JsonNode array) {
        List<String> values = new ArrayList<>();
        array.forEach(value -> values.add(value.asText()));
        return values.toArray(new String[0]);
    }

    private static void invoke(Command command, String main, String[] args) {
        try {
            Class<?> tool = Class.forName(main, true, Thread.currentThread().getContextClassLoader());
            tool.getMethod("main", String[].class).invoke(null, (Object) args);
        } catch (InvocationTargetException e) {
            if (!(e.getCause() instanceof ExitTrap)) {
                uncaught(command, e.getCause());
            }
        } catch (ExitTrap e) {
            return;
        } catch (Throwable e) {
            uncaught(command, e);
        }
    }

    private static void uncaught(Command command, Throwable e) {
        StringWriter text = new StringWriter();
        e.printStackTrace(new PrintWriter(text, true));
        System.err.print("Exception in thread \"main\" " + text);
        command.exit(1);
    }

    private static void waitForThreads(Command command) {
        Thread[] threads = new Thread[256];
        long deadline = System.currentTimeMillis() + 10_000;
        synchronized (command) {
            if (command.status != null) {
                return;
            }
        }
        while (System.currentTimeMillis() < deadline) {
            int count = command.group.enumerate(threads);
            boolean alive = false;
            for (int i = 0; i < count; i++) {
                alive |= !threads[i].isDaemon() && threads[i] != Thread.currentThread();
            }
            if (!alive) {
                return;
            }
            try {
                Thread.sleep(5);
            } catch (InterruptedException e) {
                return;
            }
        }
    }

    private static void start(JsonNode request) {
        Command command = new Command(request.get("id").asText(), request.path("stdin").asText(""));
        COMMANDS.put(command.group, command);
        BY_ID.put(command.id, command);
        String main = request.get("main").asText();
        String[] args = strings(request.get("args"));
        Thread thread = new Thread(command.group, () -> {
            invoke(command, main, args);
            waitForThreads(command);
        }, "main");
        thread.setContextClassLoader(new ToolLoader());
        thread.setDaemon(false);
        thread.start();
        Thread watcher = new Thread(() -> {
            joinQuietly(thread, 0);
            Thread hooks = new Thread(command.group, command::runHooks, "hooks");
            hooks.setContextClassLoader(thread.getContextClassLoader());
            hooks.start();
            joinQuietly(hooks, 30_000);
            finish(command);
        }, "watch-" + command.id);
        watcher.setDaemon(true);
        watcher.start();
    }

    private static void finish(Command command) {
        ObjectNode answer = command.finish();
        COMMANDS.remove(command.group);
        BY_ID.remove(command.id);
        synchronized (answers) {
            answers.println(answer);
            answers.flush();
        }
    }

    private static void stop(String id) {
        Command command = BY_ID.get(id);
        if (command != null) {
            Thread hooks = new Thread(command.group, command::runHooks, "hooks");
            hooks.setDaemon(true);
            hooks.start();
        }
    }

    private static void install(String[] jars) throws IOException {
        List<URL> urls = new ArrayList<>();
        for (String jar : jars) {
            urls.add(Path.of(jar).toUri().toURL());
        }
        toolJars = urls.toArray(new URL[0]);
        answers = new PrintStream(System.out, false, StandardCharsets.UTF_8);
        System.setOut(new PrintStream(new Dispatch(false), true, StandardCharsets.UTF_8));
        System.setErr(new PrintStream(new Dispatch(true), true, StandardCharsets.UTF_8));
        Exit.setExitProcedure((status, message) -> trap(status));
        Exit.setHaltProcedure((status, message) -> trap(status));
        Exit.setShutdownHookAdder((name, hook) -> {
            Command command = current();
            if (command != null) {
                synchronized (command) {
                    command.hooks.add(new Thread(command.group, hook, name));
                }
            }
        });
    }

    @SuppressWarnings({"removal", "deprecation"})
    public static void main(String[] jars) throws IOException {
        BufferedReader requests =
            new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        install(jars);
        System.setIn(new DispatchIn());
        System.setSecurityManager(new NoExit());
        for (String line = requests.readLine(); line != null; line = requests.readLine()) {
            JsonNode request = JSON.readTree(line);
            if (request.has("stop")) {
                stop(request.get("stop").asText());
            } else {
                start(request);
            }
        }
        Runtime.getRuntime().halt(0);
    }

    private ToolRunner() {
    }
}
