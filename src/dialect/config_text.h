/* SPDX-License-Identifier: Apache-2.0
 * config.json is edited as text: one member of its object comes or goes, every other byte stays. Model configurations
 * hold what a JSON library would reword or refuse (1e-12, Infinity, integers of 70 bits). */
#ifndef BRCI_CONFIG_TEXT_H
#define BRCI_CONFIG_TEXT_H

#include "dialect/pool.h"

/* The text of a member's value; *value = NULL where the member is not there. 0 = the text is not one JSON object, or
 * has the member twice. Values are delimited, not read. */
int brci_config_member(const char *text, const char *key, const char **value, size_t *length);
/* The text without a member (the same text if it is not there); NULL if it cannot be edited. */
const char *brci_config_without(brci_pool *pool, const char *text, const char *key);
/* The text with a member set to a JSON value; NULL if it cannot be edited. */
const char *brci_config_with(brci_pool *pool, const char *text, const char *key, const char *value);

#endif
