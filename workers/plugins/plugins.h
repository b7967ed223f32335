/* The plugins that come with ringline. Plain declarations: cffi reads this file. */
#ifndef RINGLINE_PLUGINS_H
#define RINGLINE_PLUGINS_H
#include "../batch.h"

extern struct rl_plugin rl_forward; /* state: uint8_t[ports], the output of each */
extern struct rl_plugin rl_drop;
extern struct rl_plugin rl_mac_swap;
#endif
