/* SPDX-License-Identifier: Apache-2.0
 * --help, from the tables. */
#include "options.h"

#include <string.h>

enum { WIDTH = 100, OPTION_COLUMN = 26 };

/* Prints text broken at spaces, from column `at` on, further lines indented to `indent`. Empty lines stay. */
static void wrap(FILE *out, size_t at, size_t indent, const char *text) {
    for (const char *word = text; *word != '\0';) {
        const size_t length = strcspn(word, " \n");
        if (at > indent && at + 1 + length > WIDTH) fputc('\n', out), at = 0;
        if (at < indent) fprintf(out, "%*s", (int)(indent - at), ""), at = indent;
        else if (at > indent) fputc(' ', out), at++;
        fwrite(word, 1, length, out);
        at += length;
        word += length;
        if (*word == '\n') {
            for (; *word == '\n'; word++) fputc('\n', out);
            at = 0;
        }
        word += strspn(word, " ");
    }
    fputc('\n', out);
}

/* "  -o, --output DST" padded, then what it does. */
static void list_options(FILE *out, uint32_t mask) {
    for (size_t id = 0; id < OPTION_COUNT; id++) {
        const struct option_row *row = &option_rows[id];
        char text[OPTION_HELP_SIZE];
        if ((mask >> id & 1) == 0 || row->help == NULL) continue;
        char label[64];
        const char letter[5] = {'-', row->letter, ',', ' ', '\0'};
        snprintf(label, sizeof label, "  %s--%s%s%s", row->letter != 0 ? letter : "    ", row->name,
                 row->argument != NULL ? " " : "", row->argument != NULL ? row->argument : "");
        fprintf(out, "%-*s", OPTION_COLUMN, label);
        wrap(out, strlen(label) < OPTION_COLUMN ? OPTION_COLUMN : strlen(label), OPTION_COLUMN,
             option_help((enum option_id)id, text, sizeof text));
    }
}

static void list_synopsis(FILE *out, const struct command *command) {
    fprintf(out, "Usage: breccia %s", command->name);
    if (command->operands[0] != '\0') fprintf(out, " %s", command->operands);
    for (size_t id = 0; id < OPTION_COUNT; id++) {
        const struct option_row *row = &option_rows[id];
        if ((command->required >> id & 1) == 0) continue;
        if (row->letter != 0) fprintf(out, " -%c %s", row->letter, row->argument);
        else fprintf(out, " --%s %s", row->name, row->argument);
    }
    fputs(" [OPTIONS]\n", out);
}

void help_command(FILE *out, const struct command *command) {
    list_synopsis(out, command);
    fputc('\n', out);
    wrap(out, 0, 0, command->details);
    fputs("\nOptions:\n", out);
    list_options(out, command->required | command->optional);
    if (command->json == NULL) return;
    fputs("\nThe object of --json:\n", out);
    wrap(out, 0, 2, command->json);
}

void help_program(FILE *out) {
    fprintf(out, "breccia: %s\n\nUsage: breccia COMMAND [OPTIONS]\n\n", program_row.summary);
    wrap(out, 0, 0, program_row.details);
    fputs("\nCommands:\n", out);
    for (size_t i = 0; i < command_count; i++)
        fprintf(out, "  %-12s%s\n", command_rows[i].name, command_rows[i].summary);
    fputs("\nOptions:\n", out);
    list_options(out, program_row.optional);
    fputs("\nExamples:\n", out);
    for (const struct manual_row *row = manual_examples; row->term != NULL; row++) fprintf(out, "  %s\n", row->term);
    fputs("\nExit codes:\n", out);
    for (const struct manual_row *row = manual_exits; row->term != NULL; row++)
        fprintf(out, "  %-5s%s\n", row->term, row->text);
    fputs("\n`breccia COMMAND --help` describes a command.\n", out);
}
