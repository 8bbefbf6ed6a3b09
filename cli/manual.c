/* SPDX-License-Identifier: Apache-2.0
 * The man page (groff, man(7) macros) and docs/cli.md, from the tables. */
#include "options.h"

#include "breccia/breccia.h"

#include <string.h>

const struct manual_row manual_exits[] = {
#define EXIT(code, text) {#code, text},
#define VARIABLE(name, text)
#define EXAMPLE(command, text)
#include "manual.def"
#undef EXIT
#undef VARIABLE
#undef EXAMPLE
    {NULL, NULL}};
const struct manual_row manual_variables[] = {
#define EXIT(code, text)
#define VARIABLE(name, text) {name, text},
#define EXAMPLE(command, text)
#include "manual.def"
#undef EXIT
#undef VARIABLE
#undef EXAMPLE
    {NULL, NULL}};
const struct manual_row manual_examples[] = {
#define EXIT(code, text)
#define VARIABLE(name, text)
#define EXAMPLE(command, text) {command, text},
#include "manual.def"
#undef EXIT
#undef VARIABLE
#undef EXAMPLE
    {NULL, NULL}};

/* groff: a backslash escapes, a hyphen that is typed is \-, and no line may start with a dot or a quote. */
static void man_text(FILE *out, const char *text) {
    int start = 1;
    for (const char *s = text; *s != '\0'; s++) {
        if (*s == '\n' && s[1] == '\n') {
            fputs("\n.PP\n", out);
            s++;
            start = 1;
            continue;
        }
        if (start && (*s == '.' || *s == '\'')) fputs("\\&", out);
        if (*s == '\\') fputs("\\e", out);
        else if (*s == '-') fputs("\\-", out);
        else if (*s == '\'') fputs("\\(aq", out);
        else if (*s == '`') fputs("\\(ga", out);
        else fputc(*s, out);
        start = *s == '\n';
    }
    fputc('\n', out);
}

static void man_options(FILE *out, uint32_t mask) {
    for (size_t id = 0; id < OPTION_COUNT; id++) {
        const struct option_row *row = &option_rows[id];
        char text[OPTION_HELP_SIZE];
        if ((mask >> id & 1) == 0 || row->help == NULL) continue;
        fputs(".TP\n", out);
        if (row->letter != 0) fprintf(out, "\\fB\\-%c\\fR, ", row->letter);
        fputs("\\fB\\-\\-", out);
        for (const char *s = row->name; *s != '\0'; s++) fputs(*s == '-' ? "\\-" : (char[]){*s, '\0'}, out);
        fprintf(out, "\\fR%s%s%s\n", row->argument != NULL ? " \\fI" : "", row->argument != NULL ? row->argument : "",
                row->argument != NULL ? "\\fR" : "");
        man_text(out, option_help((enum option_id)id, text, sizeof text));
    }
}

static void man_rows(FILE *out, const char *title, const struct manual_row *row) {
    fprintf(out, ".SH %s\n", title);
    for (; row->term != NULL; row++) {
        fputs(".TP\n.B ", out);
        man_text(out, row->term);
        man_text(out, row->text);
    }
}

void manual_man(FILE *out) {
    fprintf(out,
            ".\\\" SPDX-License-Identifier: Apache-2.0\n.\\\" Made by breccia --generate man.\n"
            ".TH BRECCIA 1 \"\" \"breccia %s\" \"User Commands\"\n.SH NAME\nbreccia \\- %s\n.SH SYNOPSIS\n"
            ".B breccia\n.I COMMAND\n[\\fIOPTIONS\\fR]\n.SH DESCRIPTION\n",
            brc_version(), "low\\-precision tensors that keep their scales");
    man_text(out, program_row.details);
    fputs(".SH OPTIONS\n", out);
    man_options(out, program_row.optional);
    fputs(".SH COMMANDS\n", out);
    for (size_t i = 0; i < command_count; i++) {
        const struct command *command = &command_rows[i];
        fprintf(out, ".SS breccia %s %s\n", command->name, command->operands);
        man_text(out, command->details);
        man_options(out, command->required | command->optional);
        if (command->json == NULL) continue;
        fputs(".PP\nThe object of \\-\\-json:\n", out);
        man_text(out, command->json);
    }
    man_rows(out, "EXIT STATUS", manual_exits);
    man_rows(out, "ENVIRONMENT", manual_variables);
    man_rows(out, "EXAMPLES", manual_examples);
}

static void markdown_options(FILE *out, uint32_t mask) {
    fputs("\n| option | |\n|---|---|\n", out);
    for (size_t id = 0; id < OPTION_COUNT; id++) {
        const struct option_row *row = &option_rows[id];
        char text[OPTION_HELP_SIZE];
        if ((mask >> id & 1) == 0 || row->help == NULL) continue;
        fputs("| `", out);
        if (row->letter != 0) fprintf(out, "-%c`, `", row->letter);
        fprintf(out, "--%s%s%s` | %s |\n", row->name, row->argument != NULL ? " " : "",
                row->argument != NULL ? row->argument : "", option_help((enum option_id)id, text, sizeof text));
    }
}

static void markdown_rows(FILE *out, const char *title, const char *head, const struct manual_row *row) {
    fprintf(out, "\n## %s\n\n| %s | |\n|---|---|\n", title, head);
    for (; row->term != NULL; row++) fprintf(out, "| `%s` | %s |\n", row->term, row->text);
}

void manual_markdown(FILE *out) {
    fprintf(out,
            "<!-- SPDX-License-Identifier: Apache-2.0 -->\n<!-- Made by breccia --generate markdown from cli/*.def; do "
            "not edit. -->\n"
            "# The command line\n\n%s\n",
            program_row.details);
    markdown_options(out, program_row.optional);
    for (size_t i = 0; i < command_count; i++) {
        const struct command *command = &command_rows[i];
        fprintf(out, "\n## breccia %s %s\n\n%s\n", command->name, command->operands, command->details);
        markdown_options(out, command->required | command->optional);
        if (command->json != NULL) fprintf(out, "\nThe object of `--json`:\n\n> %s\n", command->json);
    }
    markdown_rows(out, "Exit codes", "code", manual_exits);
    markdown_rows(out, "Environment", "variable", manual_variables);
    markdown_rows(out, "Examples", "command", manual_examples);
}
