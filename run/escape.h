// Writing any bytes where only some are allowed. What is not valid UTF-8, and what may not stand in
// the place, becomes U+FFFD, so that a reader of the file never meets it.
#ifndef RUN_ESCAPE_H
#define RUN_ESCAPE_H

#include <stddef.h>
#include <stdio.h>

// The inside of a JSON string, without the quotes.
void escape_json(FILE *out, const char *text, size_t size);
// Text or an attribute of XML.
void escape_xml(FILE *out, const char *text, size_t size);
// For a terminal: newlines and tabs stay, no other control character does.
void escape_terminal(FILE *out, const char *text, size_t size);

#endif
