"""Find the downsampling sites of any network, and see what each of them sampled in a forward pass.

    from invariscope.zoo.sites import find_sites

    for site in find_sites(model, torch.zeros(1, 3, 224, 224)):
        print(site)

Every place where a map gets smaller is found in one of three ways, which ``Site.explained`` names:

1. **reader**: the call says by its arguments what it samples: pooling, strided convolution, fixed blur, slicing, our
   operators. ``recorder`` watches the pass by hooks and torch's function mode, ``functions`` holds a reader for every
   such function, ``rearranging`` follows reshapes to space-to-depth.
2. **behaviour**: smaller maps that no single call explains. ``trace`` notes all calls as a graph of numbers;
   ``branches`` sets gates, pyramids and further heads aside; ``land`` follows the sizes of maps through the graph, and
   cuts out the piece between a map and the smaller one; ``pieces`` makes the ``plan`` of these. In another pass
   ``replaying`` keeps what a piece was given, ``replay`` runs it again in float64 with everything else held fixed, and
   ``jacobian`` reads its weights off its derivative. They count only where ``y = J x``, no weight is negative, their
   sums do not depend on the values, and windows fit a stride.
3. **no**: what is left is listed as ``16×16 → 8×8, not explained: why``.

``finding`` is the door: it runs the network, once where readers explain everything, else to plan, to judge and to read.
``uses`` holds what a site did, as windows and weights; ``unexplained`` what is only listed; ``vocabulary`` the names of
functions, by what they do to maps.
"""

from invariscope.zoo.sites.finding import Watch, find_sites, record
from invariscope.zoo.sites.recorder import Site
from invariscope.zoo.sites.uses import Use, View

__all__ = ["Site", "Use", "View", "Watch", "find_sites", "record"]
