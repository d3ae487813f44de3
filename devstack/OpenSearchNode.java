import static java.util.stream.Collectors.toList;

import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.apache.lucene.analysis.Analyzer;
import org.apache.lucene.analysis.th.ThaiTokenizer;
import org.codelibs.opensearch.runner.node.OpenSearchRunnerNode;
import org.opensearch.analysis.common.CommonAnalysisModulePlugin;
import org.opensearch.common.logging.LogConfigurator;
import org.opensearch.common.settings.Settings;
import org.opensearch.env.Environment;
import org.opensearch.index.analysis.AnalyzerProvider;
import org.opensearch.index.analysis.PreBuiltAnalyzerProviderFactory;
import org.opensearch.index.analysis.PreConfiguredTokenizer;
import org.opensearch.index.analysis.TokenizerFactory;
import org.opensearch.index.mapper.MapperExtrasModulePlugin;
import org.opensearch.index.reindex.ReindexModulePlugin;
import org.opensearch.indices.analysis.AnalysisModule.AnalysisProvider;
import org.opensearch.node.InternalSettingsPreparer;
import org.opensearch.painless.PainlessModulePlugin;
import org.opensearch.plugins.Plugin;
import org.opensearch.script.mustache.MustacheModulePlugin;
import org.opensearch.transport.Netty4ModulePlugin;

/** OpenSearch as one node: PORT FOLDER. The folder has config/opensearch.yml and config/log4j2.properties. */
public class OpenSearchNode {
    static final List<Class<? extends Plugin>> MODULES = List.of(
        Netty4ModulePlugin.class,
        Analysis.class,
        MapperExtrasModulePlugin.class,
        ReindexModulePlugin.class,
        PainlessModulePlugin.class,
        MustacheModulePlugin.class
    );

    public static void main(String[] arguments) throws Exception {
        Path home = Path.of(arguments[1]).toAbsolutePath();
        Settings settings = Settings.builder()
            .put("path.home", home.toString())
            .put("http.port", arguments[0])
            .build();
        Environment environment =
            InternalSettingsPreparer.prepareEnvironment(settings, Map.of(), home.resolve("config"), () -> "node");
        LogConfigurator.registerErrorListener();
        LogConfigurator.configure(environment);
        OpenSearchRunnerNode node = new OpenSearchRunnerNode(environment, MODULES);
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            try {
                node.close();
            } catch (Exception error) {
                error.printStackTrace();
            }
        }));
        node.start();
        Thread.currentThread().join();
    }

    /** A Java that was cut down may lack the words of Thai, and no index can be made while an analyzer can't. */
    public static class Analysis extends CommonAnalysisModulePlugin {
        private static boolean works(String name) {
            return ThaiTokenizer.DBBI_AVAILABLE || !name.equals("thai");
        }

        private static <T> Map<String, T> working(Map<String, T> made) {
            Map<String, T> left = new TreeMap<>(made);
            left.keySet().removeIf(name -> !works(name));
            return left;
        }

        @Override
        public Map<String, AnalysisProvider<AnalyzerProvider<? extends Analyzer>>> getAnalyzers() {
            return working(super.getAnalyzers());
        }

        @Override
        public Map<String, AnalysisProvider<TokenizerFactory>> getTokenizers() {
            return working(super.getTokenizers());
        }

        @Override
        public List<PreBuiltAnalyzerProviderFactory> getPreBuiltAnalyzerProviderFactories() {
            return super.getPreBuiltAnalyzerProviderFactories().stream()
                .filter(made -> works(made.getName()))
                .collect(toList());
        }

        @Override
        public List<PreConfiguredTokenizer> getPreConfiguredTokenizers() {
            return super.getPreConfiguredTokenizers().stream()
                .filter(made -> works(made.getName()))
                .collect(toList());
        }
    }
}
