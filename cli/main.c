/* SPDX-License-Identifier: Apache-2.0
 * breccia: finds the command, runs it, and sees that what it printed arrived. */
#include "breccia/breccia.h"
#include "json.h"
#include "options.h"
#include "print.h"
#include "progress.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#ifndef BRECCIA_BUILD
#define BRECCIA_BUILD "unknown"
#endif
#if defined(__clang__)
#define COMPILER __VERSION__
#else
#define COMPILER "GCC " __VERSION__
#endif

static int print_version(int json) {
    static const char gpu[] = "not used by these commands"; /* the library's calls for GPUs are breccia_cuda.h's */
    if (!json) {
        printf("breccia %s\nisa      %s\nthreads  %u\ngpu      %s\nbuild    %s, %s\n", brc_version(), brc_isa(),
               brc_default_threads(), gpu, COMPILER, BRECCIA_BUILD);
        return 0;
    }
    struct json_out out = {0};
    json_open(&out, NULL, '{');
    json_put(&out, "version", json_text(brc_version()));
    json_put(&out, "isa", json_text(brc_isa()));
    json_put(&out, "threads", json_integer(brc_default_threads()));
    json_put(&out, "gpu", json_null());
    json_put(&out, "compiler", json_text(COMPILER));
    json_put(&out, "build", json_text(BRECCIA_BUILD));
    return json_close(&out);
}

static void generate(const char *kind) {
    static const struct {
        const char *kind;
        void (*print)(FILE *);
    } rows[] = {{"man", manual_man},
                {"markdown", manual_markdown},
                {"bash", completions_bash},
                {"zsh", completions_zsh},
                {"fish", completions_fish}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (strcmp(rows[i].kind, kind) == 0) rows[i].print(stdout);
}

/* Variables that the libraries pass over where they make no sense. */
static void check_environment(void) {
    const char *threads = getenv("BRECCIA_THREADS"), *isa = getenv("BRECCIA_ISA");
    char *end = NULL;
    if (threads != NULL && threads[0] != '\0' && (strtol(threads, &end, 10) <= 0 || *end != '\0'))
        complain("warning: BRECCIA_THREADS=%s is no number of threads; %u are used", threads, brc_default_threads());
    if (isa != NULL && isa[0] != '\0' && strcasecmp(isa, brc_isa()) != 0)
        complain("warning: BRECCIA_ISA=%s is no instruction set of this processor and build; %s is used", isa,
                 brc_isa());
}

/* `written`: what a command has written, once it is complete. */
static int run_command(int argc, char **argv, const char **written) {
    const struct command *command = command_find(argv[0]);
    struct invocation in;
    if (command == NULL) return EXIT_USAGE;
    int code = invocation_parse(&in, command, argc, argv);
    if (code == 0 && option_value(&in, OPTION_HELP) != NULL) {
        help_command(stdout, command);
    } else if (code == 0) {
        check_environment();
        code = command->run(&in);
        if (code == 0 && (command->required & OPT(OUTPUT)) != 0) *written = option_value(&in, OPTION_OUTPUT);
    }
    invocation_free(&in);
    return code;
}

static int run(int argc, char **argv, const char **written) {
    struct invocation program;
    int code = invocation_parse(&program, &program_row, argc, argv);
    const char *kind = option_value(&program, OPTION_GENERATE);
    const int json = option_value(&program, OPTION_JSON) != NULL;
    if (code != 0) {
    } else if (option_value(&program, OPTION_HELP) != NULL) {
        help_program(stdout);
    } else if (option_value(&program, OPTION_VERSION) != NULL) {
        code = print_version(json);
    } else if (kind != NULL) {
        generate(kind);
    } else if (json) {
        complain("--json stands after the command, as in `breccia inspect --json PATH`");
        code = EXIT_USAGE;
    } else if (program.n_operands == 0) {
        help_program(stderr);
        code = EXIT_USAGE;
    } else {
        code = run_command(program.n_operands, program.operands, written);
    }
    invocation_free(&program);
    return code;
}

/* A descriptor that is closed would be given to the next file opened, and output would end up in it. */
static void open_standard_descriptors(void) {
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) == -1 && errno == EBADF)
            (void)open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY);
}

/* What was printed must have arrived; a reader that went away (`| head`) is no error. */
static int check_output(int code, const char *written) {
    errno = 0;
    if (fflush(stdout) == 0 && !ferror(stdout)) return code;
    struct pollfd reader = {.fd = STDOUT_FILENO, .events = POLLOUT};
    const int reason = errno;
    if (reason == EPIPE || (poll(&reader, 1, 0) == 1 && (reader.revents & POLLERR) != 0)) return code;
    const char *why = reason != 0 ? strerror(reason) : "writing failed";
    if (written != NULL) complain("standard output: %s; %s is complete, but the summary is not", why, written);
    else complain("standard output: %s; the result is incomplete", why);
    return EXIT_IO;
}

int main(int argc, char **argv) {
    open_standard_descriptors();
    signals_install();
    const char *written = NULL;
    const int code = run(argc, argv, &written);
    return check_output(code, written);
}
