/* The bundled plugins in C. Plain declarations: the C compiler and cffi both read this file. */
#ifndef RINGLINE_PLUGINS_H
#define RINGLINE_PLUGINS_H
#include "../batch.h"

extern struct rl_plugin rl_forward; /* state: uint8_t[ports], the verdict by input port */
extern struct rl_plugin rl_drop;
extern struct rl_plugin rl_mac_swap;
extern struct rl_plugin rl_mac_swap_timed;
#endif
